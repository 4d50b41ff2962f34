"""al-sample --backend vllm: what is refused before an engine starts, and, marked vllm, all else with vLLM's own engine.

`make test-vllm` runs the latter, on a CPU. An engine takes long to start, so that each run is looked at from all sides.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import click
import pytest
import torch

from al_sample import backend_vllm
from alignlib.decoding.draws import Sampling
from alignlib.models import adapters, load
from helpers import adapted, engine, tiny
from helpers.commands import CONTEXT, folders, lines, one_line, prompts, read, run

LONG = {"prompt": "wash the old door. " * 60, "mine": [1]}
CHAT = {"messages": [{"role": "user", "content": "Can you help me?"}], "id": "chat"}
needs_engine = [pytest.mark.vllm, pytest.mark.slow]


def built_in(records, *args, model=None) -> list[dict]:
    done = run("al-sample", model or engine.policy(), *engine.TOKENS, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def succeeded(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def must_agree(records: list[dict], others: list[dict], apart: float = 1e-4) -> None:
    """The same records, but for the last bits of log-probabilities."""
    for record, other in zip(records, others, strict=True):
        assert record.pop("logps", None) == pytest.approx(other.pop("logps", None), abs=apart)
        assert record == other


def score(records: list[dict], *args, model=None) -> list[dict]:
    """al-score's log-probabilities, as ref_logps."""
    done = run("al-score", model or engine.policy(), "--logps", "--as-field", "ref_logps", *args, stdin=lines(*records))
    return read(done.stdout)


# -- refused before an engine starts ---------------------------------------------------------------------------


def refused(*args, model=None) -> str:
    done = run("al-sample", model or folders().policy, "--backend", "vllm", "-m", 12, *args, stdin=lines(*prompts(1)))
    assert done.returncode == 2 and done.stdout == ""
    return one_line(done.stderr)


@pytest.mark.parametrize(("args", "words"), [
    (("--batch-tokens", 9), "--batch-tokens is not for --backend vllm"),
    (("--device", "cpu"), "--device is not for --backend vllm"),
    (("--base-url", "http://x"), "--base-url is not for --backend vllm"),
    (("-t", 3), "--temperature 3: vLLM takes 0, or 0.01 to 2"),
    (("-t", 0.001), "--temperature 0.001"),
    (("--logps", "--stop", "x"), "--logps with --stop"),
    (("--logps", "--condition", "x"), "--logps with --condition"),
    (("--logps", "-t", 0.5, "--top-p", 0.9), "al-score --logps"),
    (("-m", CONTEXT), f"the model's context is {CONTEXT} tokens"),
    (("--max-model-len", 12), "the model's context is 12 tokens"),
])
def test_what_it_would_do_otherwise_is_refused(args, words):
    assert words in refused(*args)


ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}


def test_longrope_s_other_factors_are_not_reached(tmp_path):
    """An engine whose context is longer than what the model was first trained for takes them for every text."""
    rope, top = {**ROPE, "original_max_position_embeddings": 64}, {"original_max_position_embeddings": 64}
    for config in (tiny.config("phi3", rope_parameters=rope, **top), tiny.config("llama", rope_parameters=rope)):
        # without --max-model-len the engine would read the first alone as far as that
        assert [backend_vllm.engine_context(config, asked) for asked in (None, 40, 64)] == [64, 40, 64]
        with pytest.raises(click.UsageError, match="--max-model-len 65: beyond 64 tokens vLLM reads all texts"):
            backend_vllm.engine_context(config, 65)
    for plain in (tiny.config("llama"), tiny.config("bloom"), tiny.config("llama", rope_parameters={
            **ROPE, "original_max_position_embeddings": tiny.CONTEXT})):
        assert [backend_vllm.engine_context(plain, asked) for asked in (None, 40, 999)] == [None, 40, 999]
    model = tiny.save(tiny.causal("phi3", rope_parameters=ROPE, original_max_position_embeddings=64), tmp_path / "phi3")
    assert "--max-model-len 128: beyond 64 tokens" in refused("--max-model-len", 128, model=model)


def test_models_of_other_kinds_are_refused():
    assert "a reward model" in refused(model=folders().reward)
    assert "--backend vllm takes folders; `al-data model " in refused(model=f"{folders().policy}/model.safetensors")


@pytest.mark.parametrize(("says", "words"), [
    ({"peft_type": "IA3"}, "an adapter by IA3, which vLLM does not take; --backend hf does"),
    ({"use_dora": True}, "LoRA with use_dora"),
    ({"modules_to_save": ["lm_head"]}, "LoRA with modules_to_save"),
    ({"alpha_pattern": {"q_proj": 4}}, "LoRA with alpha_pattern"),
    ({"bias": "all"}, "LoRA with bias"),
    ({"init_lora_weights": "pissa_niter_4"}, "LoRA with init_lora_weights"),
])
def test_adapters_that_the_engine_would_read_otherwise_are_refused(tmp_path, says, words):
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "base_model_name_or_path": folders().policy}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | says))
    with pytest.raises(backend_vllm.click.UsageError, match=words):
        backend_vllm.lora_rank(adapters.find(str(tmp_path)))


def test_adapters_in_float32_are_refused_on_a_gpu():
    """Seen with vLLM 0.24 on an H200: an AssertionError of its kernel, a page of it."""
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    with pytest.raises(click.UsageError, match="--dtype fp32: on a GPU vLLM computes adapters in bf16 or fp16 alone"):
        backend_vllm.must_adapt(4, torch.float32, cuda)
    for fine in ((None, torch.float32, cuda), (4, torch.bfloat16, cuda), (4, torch.float32, cpu)):
        backend_vllm.must_adapt(*fine)


@pytest.mark.parametrize(("says", "rank"), [({"init_lora_weights": True}, 4), ({"bias": "none", "r": 64}, 64)])
def test_plain_lora_is_taken(tmp_path, says, rank):
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "modules_to_save": None, "alpha_pattern": {},
              "base_model_name_or_path": folders().policy}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | says))
    assert backend_vllm.lora_rank(adapters.find(str(tmp_path))) == rank


def test_prompts_of_an_adapter_are_those_that_other_commands_read(tmp_path, monkeypatch):
    """Its template is its own, the tokenizer that it lacks is its base's."""
    words = tiny.chat_tokenizer()
    base = tiny.save(tiny.causal("llama", vocab_size=len(words)), tmp_path / "base", words)
    model = adapted.adapter(tmp_path, base)
    (tmp_path / "adapter" / "chat_template.jinja").write_text(f"Briefly.{tiny.CHATML}")
    monkeypatch.setattr(backend_vllm.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(backend_vllm, "start", lambda *how, **arguments: SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setattr(backend_vllm, "adapter_request", lambda adapter: adapter.path)
    with backend_vllm.click.Context(backend_vllm.click.Command("al-sample")):
        sampler = backend_vllm.Sampler(
            model, Sampling(4), condition=None, logps=False, window=1, dtype="fp32", files=(), eager=True,
            tensor_parallel=1, data_parallel=1, gpu_memory=None, max_model_len=None, max_prompt=None, keep_prompt="end",
            on_long="truncate", template=None, template_args=(), control_tokens=False)
        prepared = sampler.prepare(CHAT)
    own = load.encoder_for(load.load_policy(model, "cpu", "fp32"))
    assert own.tokens.decode(prepared).startswith("Briefly.") and prepared == own.prompt(CHAT)
    assert sampler.encoder.ends == own.ends


def test_little_is_asked_where_files_say_so(tmp_path):
    (tmp_path / "in").write_bytes(lines(*prompts(4)))
    two = Sampling(backend_vllm.LITTLE // 8, temperatures=(1.0, 1.0))
    assert backend_vllm.asks_little([str(tmp_path / "in")], two)
    assert not backend_vllm.asks_little([str(tmp_path / "in")] * 2, two)
    assert not backend_vllm.asks_little([], two) and not backend_vllm.asks_little(["-"], two)
    assert f"at most {backend_vllm.LITTLE:,} tokens" in " ".join(run("al-sample", "--help").stdout.split())


def test_without_vllm_there_is_a_line_that_says_what_to_do():
    if backend_vllm.importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    assert refused() == (
        "al-sample: --backend vllm needs vLLM: pip install 'align-tools[vllm]' (see al-sample --help)")


# -- the engine ------------------------------------------------------------------------------------------------


class TestEngine:
    pytestmark = needs_engine

    def test_greedy_is_what_the_built_in_sampler_gives(self, tmp_path):
        """Records, ids, texts and what ended them, of long prompts and chats too; log-probabilities to 1e-4."""
        given, out, rejects = (tmp_path / name for name in ("in", "out", "rejects"))
        records = [*prompts(6), LONG, CHAT]
        bad = b"{broken\n"
        given.write_bytes(bad + lines(*records[:4]) + bad + lines(*records[4:]) + bad)
        done = engine.sample(b"", given, "--greedy", "-n", 2, "--logps", "--on-error", "skip", "--rejects", rejects,
                             "-o", out)
        assert done.returncode == 0, done.stderr
        assert "8 records, 3 skipped" in done.stderr and "1 prompts cut" in done.stderr
        assert rejects.read_bytes() == bad * 3
        expected = built_in(records, "--greedy", "-n", 2, "--logps")
        must_agree(read(out.read_text()), expected)
        assert {reason for record in expected for reason in record["finish_reasons"]} == {"stop", "length"}

    def test_draws_at_one_temperature(self):
        """Compiled, from a pipe: ids decode to the texts, and log-probabilities are al-score's at that temperature."""
        made = succeeded(engine.sample(prompts(20), "-n", 4, "-t", 0.5, "--logps"))
        draws = [draw for record in made for draw in zip(
            *(record[name] for name in ("completions", "finish_reasons", "completion_ids", "end_ids")), strict=True)]
        assert {reason for _, reason, _, _ in draws} == {"stop", "length"}
        for text, reason, ids, end in draws:
            assert folders().tokenizer.decode(ids, skip_special_tokens=True) == text
            assert (len(ids) == 12 and end is None) if reason == "length" else (len(ids) < 12 and end is not None)
        assert all(len(set(record["completions"])) > 1 for record in made)
        for record in score(made, "--temperature", 0.5):
            assert record["logps"] == pytest.approx(record["ref_logps"], abs=1e-4)
            assert record["logps_temperature"] == record["ref_logps_temperature"] == 0.5

    def test_draws_depend_on_their_own_names_alone(self, tmp_path):
        """A seed of each completion's own: in other company the same; then a bad line ends it, all before it written.

        The company is of more tokens (4096) than the engine reads at once.
        Sums of floats do depend on company, in the last bits, which decide between tokens so seldom that here none is.
        """
        (tmp_path / "in").write_bytes(lines(*prompts(9)) + b"{broken\n" + lines(*prompts(2)))
        alone = engine.sample(b"", tmp_path / "in", "-n", 2, "--window", 1, "--ids")
        assert alone.returncode == 65 and f"{tmp_path / 'in'}:10: broken JSON" in alone.stderr
        together = succeeded(engine.sample(prompts(150), "-n", 3, "--eager", "--ids"))
        fewer = [{**record, **{name: record[name][:2] for name in (
            "completions", "finish_reasons", "completion_ids", "end_ids")}} for record in together[:9]]
        assert read(alone.stdout) == fewer
        assert all(len(set(map(tuple, record["completion_ids"]))) == 3 for record in together)

    def test_stop_strings_and_conditions(self):
        free = " ".join(text for record in built_in(prompts(8), "--greedy") for text in record["completions"])
        how = ("--greedy", "--ids", "--stop", max("aeiou", key=free.count), "--stop", "never ever", "--condition",
               "Be kind. ")
        made = succeeded(engine.sample([*prompts(8), CHAT], "--eager", *how))
        assert made == built_in([*prompts(8), CHAT], *how)
        assert any(reason == "stop" and end is None for record in made
                   for reason, end in zip(record["finish_reasons"], record["end_ids"], strict=True))

    def test_an_adapter_gives_what_it_gives_merged(self):
        """Log-probabilities of several temperatures are the model's own, ends of sequence in them, top-p not."""
        model, how = engine.adapter(), ("--logps", "-t", 0, "-t", 1.5, "--top-p", 0.9)
        done = engine.sample(prompts(8), *how, "--eager", model=model)
        made = succeeded(done)
        note, _ = done.stderr.splitlines()  # and the summary: nothing that the engine's libraries have to say
        assert note.startswith("note: ")
        expected = built_in(prompts(8), "--greedy", model=model)
        assert [record["completions"][0] for record in made] == [record["completions"][0] for record in expected]
        assert expected != built_in(prompts(8), "--greedy")
        for record in score(made, model=model):
            assert record["logps"] == pytest.approx(record["ref_logps"], abs=1e-4)
            assert "logps_temperature" not in record

    def test_a_model_of_nan_is_1_and_names_the_record(self):
        done = engine.sample(prompts(2), "--logps", "--greedy", "--eager", model=folders().broken(engine.policy()))
        assert (done.returncode, done.stdout) == (1, "")
        assert "<stdin>:1: the model's log-probabilities are not finite" in done.stderr

    def test_an_engine_that_does_not_start_says_why(self):
        done = engine.sample(prompts(1), "--eager", "--max-model-len", 2 * CONTEXT)
        assert done.returncode == 2 and done.stdout == ""
        assert "vLLM does not take it" in done.stderr and "max_model_len" in one_line(done.stderr)


# -- ends ------------------------------------------------------------------------------------------------------


class TestEnds:
    """No process is left behind, whatever ends the command."""

    pytestmark = needs_engine

    @pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
    def test_a_killed_run_goes_on_where_it_was(self, tmp_path, sign):
        data, out, how = lines(*prompts(12)), tmp_path / "out", ("--greedy", "--ids", "--window", 4, "--eager")
        env = engine.on_a_cpu()
        process = engine.start(*how, "-o", out, env=env, stdin=subprocess.PIPE)
        process.stdin.write(lines(*prompts(9)))  # it cannot be done before the others have come
        process.stdin.flush()
        engine.wait_for_lines(process, out, 5)
        assert any(words.startswith("VLLM::") for words in engine.processes(env).values())
        process.send_signal(sign)
        _, said = process.communicate()
        assert process.returncode == -sign, said
        engine.must_be_gone(env)
        if sign == signal.SIGKILL:
            done = engine.sample(data, *how, "-o", out, "--resume")
            assert done.returncode == 0, done.stderr
            assert read(out.read_text()) == built_in(prompts(12), "--greedy", "--ids")

    def test_control_c_is_130_and_records_leave_as_soon_as_they_are_done(self):
        env = engine.on_a_cpu()
        process = engine.start("--eager", env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for record in prompts(3):  # each comes only after the one before it has left
            process.stdin.write(lines(record))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == record["id"]
            engine.interrupt_engine(process, env)  # which does not hear it
        engine.interrupt(process, signal.SIGINT)
        out, said = process.communicate()
        assert (process.returncode, out) == (130, b""), said
        engine.must_be_gone(env)
        assert b"Traceback" not in said

    @pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
    def test_a_signal_while_the_engine_starts(self, sign, code):
        env = engine.on_a_cpu()
        process = engine.start("--eager", env=env, stdin=subprocess.PIPE)
        while not any("spawn_main" in words or "VLLM" in words for words in engine.processes(env).values()):
            assert process.poll() is None
            time.sleep(0.02)
        engine.interrupt(process, sign)
        _, said = process.communicate()
        assert process.returncode == code and b"Traceback" not in said, said
        engine.must_be_gone(env)

    def test_head_ends_it_quietly(self, tmp_path):
        (tmp_path / "in").write_bytes(lines(*(dict(record, pad="x" * 9000) for record in prompts(100))))
        argv = [sys.executable, "-m", "al_sample", engine.policy(), tmp_path / "in", "--backend", "vllm", "-m", "2"]
        env = engine.on_a_cpu()
        done = subprocess.run(["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "-", *map(os.fspath, argv)],
                              env=env, capture_output=True, text=True)
        first, code = done.stdout.splitlines()
        assert json.loads(first)["id"] == prompts(1)[0]["id"] and code == "0"
        assert "Traceback" not in done.stderr and "al-sample" not in done.stderr
        engine.must_be_gone(env)
