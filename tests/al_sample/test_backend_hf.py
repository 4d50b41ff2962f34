"""The built-in sampler: log-probabilities in packs, whatever the window and the packs are, and after a kill."""

import json

import pytest
import torch

from al_sample import backend_hf
from alignlib.decoding.draws import Sampling
from alignlib.models.example import Example
from alignlib.records.jsonl import dumps
from alignlib.records.stream import Stream
from helpers import tiny
from helpers.commands import folders, lines, one_line, prompts, read, run
from helpers.kills import filter_job, survive


def sampler(how: Sampling, window: int, batch_tokens: int) -> backend_hf.Sampler:
    return backend_hf.Sampler(folders().policy, how, condition=None, logps=True, window=window,
                              batch_tokens=batch_tokens, device="cpu", dtype="fp32", max_prompt=None,
                              keep_prompt="end", on_long="fail")


@pytest.mark.parametrize(("window", "batch_tokens", "packs"), [(64, 16384, 1), (4, 16384, 3), (64, 400, None)])
def test_logps_in_packs_are_those_of_completions_one_by_one(tmp_path, monkeypatch, window, batch_tokens, packs):
    (tmp_path / "in").write_bytes(b"".join(map(dumps, prompts(10))))
    drawn = sampler(Sampling(8, seed=3, temperatures=(0.7,) * 3), window, batch_tokens)
    asked, pack = [], drawn.policy.pack
    monkeypatch.setattr(drawn.policy, "pack", lambda examples: asked.append(len(examples)) or pack(examples))
    with Stream([str(tmp_path / "in")], str(tmp_path / "out"), prepare=drawn.prepare) as stream:
        rows = list(drawn.draws(stream))
    assert sum(asked) == 10 and len(asked) == (packs or len(asked)) < 10
    assert [line.index for line, _ in rows] == list(range(10))
    for line, draws in rows:
        for draw in draws:
            ids = [*draw.ids, *[folders().tokenizer.eos_token_id] * (draw.reason == "stop")]
            with torch.no_grad():
                alone = drawn.policy.logps(pack([Example(line.data, [ids])]), 0.7)
            assert draw.logp == pytest.approx(alone.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("temperature", [1, 0.5])
def test_its_logps_are_al_scores(temperature):
    done = run("al-sample", folders().policy, "-n", 3, "-m", 12, "--logps", "--ids", "-t", temperature,
               stdin=lines(*prompts(6)))
    made = read(done.stdout)
    bare = [{name: value for name, value in record.items() if not name.startswith("logps")} for record in made]
    done = run("al-score", folders().policy, "--logps", "--temperature", temperature, stdin=lines(*bare))
    for one, other in zip(made, read(done.stdout), strict=True):
        assert one["logps"] == pytest.approx(other["logps"], rel=1e-5)
        assert one.get("logps_temperature") == other.get("logps_temperature") == (None if temperature == 1 else 0.5)


def test_logps_come_with_the_ids_they_are_of():
    made = run("al-sample", folders().policy, "-n", 3, "-m", 8, "--logps", stdin='{"prompt": "Hi"}\n').stdout
    again = json.loads(run("al-score", folders().policy, "--logps", "--as-field", "ref_logps", stdin=made).stdout)
    assert again["logps"] == pytest.approx(again["ref_logps"], abs=1e-4)


@pytest.mark.long
@pytest.mark.slow
def test_killed_and_resumed_with_logps(tmp_path):
    """Byte for byte: a window's packs hold the records that had left before, too."""
    job = filter_job(tmp_path, "al-sample", lines(*prompts(24)), folders().policy, "-n", 2, "-m", 12, "--logps",
                     "--window", 5, "--batch-tokens", 300)
    survive(job, 3, seed=8)


def test_a_bare_prompt_with_no_token_to_begin_with_is_named(tmp_path):
    """Under a condition it could be drawn for, but its log-probabilities are of the bare prompt."""
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy", tiny.tokenizer(bos=False))
    settings = tmp_path / "policy" / "tokenizer_config.json"
    settings.write_text(json.dumps({name: value for name, value in json.loads(settings.read_text()).items()
                                    if name != "bos_token"}))
    given = lines({"prompt": "a"}, {"prompt": ""})
    done = run("al-sample", folder, "--condition", "x", "--logps", "-m", 2, stdin=given)
    assert done.returncode == 65 and "<stdin>:2: an empty text" in one_line(done.stderr)
    done = run("al-sample", folder, "--condition", "x", "-m", 2, stdin=given)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_a_model_of_linear_attention_is_refused_before_it_is_loaded(tmp_path):
    model = tiny.save(tiny.causal("qwen3_next"), tmp_path / "model")
    done = run("al-sample", model, "-o", tmp_path / "out.jsonl", stdin='{"prompt": "Hi"}\n')
    assert done.returncode == 2 and "a Qwen3NextForCausalLM has layers without keys" in one_line(done.stderr)
    assert not (tmp_path / "out.jsonl").exists()
