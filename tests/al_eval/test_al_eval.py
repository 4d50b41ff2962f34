"""al-eval as a real process: figures worked by hand, pipes, bad lines, empty files, plots, tables."""

import json
import os
import pty
import subprocess
import sys

import pytest

from helpers.evaluation import NONE, evaluate, jsonl, record, refused, save
from helpers.process import call, command, environment

# --- reward ------------------------------------------------------------------------------------------------------


def test_reward_by_hand():
    found = evaluate("reward", "--buckets", 2, stdin=jsonl(record(1, 2, id="a"), record(6, 7)))
    # Two records, so a resample's mean is 1.5, 4 or 6.5.
    assert found["what"] == "reward" and found["records"] == 2
    assert found["reward"] == {"mean": 4.0, "low": 1.5, "high": 6.5, "n": 4}
    assert found["words"] == {"mean": 1.5, "low": 1.5, "high": 1.5, "n": 4}
    assert found["by_length"] == [
        {"words": [1, 1], "reward": {"mean": 3.5, "low": 1.0, "high": 6.0, "n": 2}},
        {"words": [2, 2], "reward": {"mean": 4.5, "low": 2.0, "high": 7.0, "n": 2}},
    ]
    # deviations -3 -2 2 3 and -.5 .5 -.5 .5: covariance 1, squares 26 and 1
    assert found["reward_length_pearson"] == pytest.approx(1 / 26**0.5)
    assert found["reward_length_spearman"] == pytest.approx(2 / (5 * 4) ** 0.5)


def test_reward_against_the_chosen(tmp_path):
    chosen = save(tmp_path / "chosen.jsonl", record(1, 9, prompt="p"), record(3, prompt="q"), record(4, prompt="q"))
    answers = jsonl(record(2, 1, prompt="p"), record(3.5, prompt="q"), record(3, prompt="q"))
    found = evaluate("reward", "--against", chosen, stdin=answers)
    # p: above 1 wins, equal is half. q has two chosen: 3.5 beats one of them, 3 ties with one and loses to one.
    assert found["winrate"]["mean"] == pytest.approx((1 + 0.5 + 0.5 + 0.25) / 4)
    assert found["winrate"]["n"] == 4 and found["winrate"]["low"] < found["winrate"]["high"]
    named = evaluate("reward", "--against", chosen, "--as", "learned", stdin=answers)
    assert named["learned"] == found["reward"] and named["learned_winrate"] == found["winrate"]
    assert "reward" not in named and "winrate" not in named
    message = refused(65, "reward", "--against", chosen, stdin=jsonl(record(1), record(1, prompt="other")))
    assert message == f"al-eval: <stdin>:2: no record of {chosen} has this prompt"


def test_reward_joins_messages(tmp_path):
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    other = {"messages": [{"role": "user", "content": "ho"}]}
    answer = {"completions": ["x"], "rewards": [1]}
    chosen = save(tmp_path / "c.jsonl", {**chat, **answer}, {**other, "completions": ["y"], "rewards": [5]})
    assert evaluate("reward", "--against", chosen, stdin=jsonl({**chat, **answer}))["winrate"]["mean"] == 0.5


def test_the_seed_decides_the_interval():
    data = jsonl(*(record(i**0.5) for i in range(40)))
    assert evaluate("reward", stdin=data) == evaluate("reward", "--seed", 0, stdin=data)
    assert evaluate("reward", "--seed", 1, stdin=data)["reward"] != evaluate("reward", stdin=data)["reward"]
    assert evaluate("reward", "--resamples", 50, stdin=data)["reward"] != evaluate("reward", stdin=data)["reward"]


# --- kl ----------------------------------------------------------------------------------------------------------


def test_kl_by_hand():
    one = {"prompt": "p", "completions": ["a", "b"], "logps": [-1, -4.5], "ref_logps": [-2, -4],
           "completion_ids": [[5, 6], [7]], "finish_reasons": ["stop", "length"]}
    two = {"prompt": "q", "completions": ["c"], "logps": [-2], "ref_logps": [-4], "completion_ids": [[8, 9]]}
    found = evaluate("kl", stdin=jsonl(one, two))
    assert found["kl"] == {"mean": 2.5 / 3, "low": 0.25, "high": 2.0, "n": 3}  # 1, -.5 | 2
    # tokens: 2 + its end, 1 cut | 2 + its end
    assert found["kl_per_token"] == {"mean": 2.5 / 7, "low": 0.125, "high": pytest.approx(2 / 3), "n": 3}
    del two["completion_ids"]
    assert evaluate("kl", stdin=jsonl(one, two))["kl_per_token"] is None


def test_kl_refuses_two_temperatures():
    row = {"prompt": "p", "completions": ["a"], "logps": [-1], "ref_logps": [-2], "logps_temperature": 0.8}
    message = refused(65, "kl", stdin=jsonl(row))
    assert message == "al-eval: <stdin>:1: logps_temperature: 0.8, but ref_logps_temperature: 1"
    assert evaluate("kl", stdin=jsonl({**row, "ref_logps_temperature": 0.8}))["kl"]["mean"] == 1.0


# --- text --------------------------------------------------------------------------------------------------------


def test_text_by_hand():
    one = {"prompt": "p", "completions": ["a b a b a", "no"], "finish_reasons": ["length", "stop"],
           "completion_ids": [[1, 2, 3], []]}
    two = {"prompt": "q", "completions": ["x y z w"]}
    found = evaluate("text", stdin=jsonl(one, two))
    means = {name: value["mean"] for name, value in found.items() if isinstance(value, dict)}
    assert means["rep_2"] == pytest.approx((3 / 5 + 1 / 4) / 2)
    assert means["diversity"] == pytest.approx((2 / 5 * 2 / 4 * 2 / 3 + 3 / 4 * 2 / 3 * 1 / 2) / 2)
    assert found["too_short"] == 1 and found["diversity"]["n"] == 2
    assert found["dist_1"] == 7 / 10 and found["dist_2"] == 5 / 10 and found["dist_3"] == 4 / 10
    assert means["dist_1_per_record"] == pytest.approx((3 / 6 + 1) / 2)
    assert means["words"] == 10 / 3 and means["chars"] == 6.0
    assert means["tokens"] == 1.5 and found["tokens"]["n"] == 2
    assert means["cut"] == 0.5 and found["cut"]["n"] == 2
    assert "coherence" not in found


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random BERT whose tokenizer knows six words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "one", "two", "three", "four", "five", "six"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
                            model_max_length=6).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=12)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_coherence(encoder, pool):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()

    def vector(text):  # each text alone: no padding can play a part
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0]
        return hidden[0] if pool == "cls" else hidden.mean(0)

    rows = [("one two three", "four"), ("six", "one one one two five"), ("two", "two six six six six six six six")]
    expected = [torch.cosine_similarity(vector(a), vector(b), dim=0).item() for a, b in rows]
    records = [{"prompt": a, "completions": [b, " "]} for a, b in rows]
    done = call("al-eval", "text", "--coherence", encoder, "--pool", pool, stdin=jsonl(*records))
    found = json.loads(done.stdout)["coherence"]
    assert found["n"] == 3 and found["mean"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert found["low"] == pytest.approx(min(expected), abs=1e-5)  # of three values, the lowest three times: 1 in 27
    assert "1 texts cut for coherence" in done.stderr
    assert done.stderr.count("\n") == 1 and "\r" not in done.stderr  # no progress bar: it is no terminal


def test_coherence_without_a_model(tmp_path, monkeypatch):
    assert f"{tmp_path}: not a model" in refused(2, "text", "--coherence", tmp_path, stdin=jsonl(record(1)))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = "from alignlib import hub; print(hub.answers())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "False\n"
    message = refused(2, "text", "--coherence", "no-such/encoder", stdin=jsonl(record(1)))
    assert "no-such/encoder: not a model" in message


# --- frontier, curve, table --------------------------------------------------------------------------------------


def mean(value, half=0.1, n=9):
    return {"mean": value, "low": value - half, "high": value + half, "n": n}


def test_frontier_joins_sorts_and_compares(tmp_path):
    rows = save(
        tmp_path / "rows.jsonl",
        {"what": "reward", "method": "exo", "step": 20, "reward": mean(3), "by_length": [{"words": [1, 2]}]},
        {"what": "kl", "method": "exo", "step": 20, "kl": mean(2), "kl_per_token": None},
        {"method": "exo", "step": 10, "reward": 2, "kl": 1},
        {"method": "dpo", "step": 10, "reward": 1.0, "kl": 1.5},
        {"method": "dpo", "step": 20, "reward": 2.0, "kl": 3.5},
    )
    sft = save(tmp_path / "sft.json", {"reward": mean(0.5), "kl": 0})
    found = evaluate("frontier", f"sft={sft}", rows, "--plot", tmp_path / "f.svg")
    assert found["points"] == [
        {"method": "sft", "step": None, "kl": 0, "reward": mean(0.5)},
        {"method": "exo", "step": 10, "kl": 1, "reward": 2},
        {"method": "exo", "step": 20, "kl": mean(2), "reward": mean(3)},
        {"method": "dpo", "step": 10, "kl": 1.5, "reward": 1.0},
        {"method": "dpo", "step": 20, "kl": 3.5, "reward": 2.0},
    ]
    assert [row["kl"] for row in found["at_equal_kl"]] == [1.5, 1.625, 1.75, 1.875, 2.0]
    assert found["at_equal_kl"][0] == {"kl": 1.5, "exo": 2.5, "dpo": 1.0}
    assert found["at_equal_kl"][-1] == {"kl": 2.0, "exo": 3.0, "dpo": 1.25}
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")


def test_frontier_from_records(tmp_path):
    """The way the experiments go: reward and kl of each checkpoint, appended, then drawn."""
    rows = b""
    for step in (1, 2):
        scored = jsonl(*({**record(step, step + 1), "logps": [step, 0], "ref_logps": [0, 0]} for _ in range(3)))
        for what in ("reward", "kl"):
            done = call("al-eval", what, "--set", "method=exo", "--set", f"step={step}", stdin=scored)
            rows += done.stdout.encode()
    found = evaluate("frontier", stdin=rows)
    assert [(p["step"], p["kl"]["mean"], p["reward"]["mean"]) for p in found["points"]] == [(1, 0.5, 1.5), (2, 1, 2.5)]
    assert found["points"][0]["reward"]["n"] == 6


def test_frontier_names_what_is_wrong(tmp_path):
    assert "<stdin>:1: method: expected a string" in refused(65, "frontier", stdin=jsonl({"kl": 1, "reward": 2}))
    row = {"method": "exo", "step": 1, "reward": 2}
    assert refused(65, "frontier", stdin=jsonl(row)).endswith("exo, step 1: no kl")
    assert refused(65, "frontier", stdin=jsonl({**row, "kl": NONE})).endswith("exo, step 1: no kl")
    message = refused(65, "frontier", stdin=jsonl(row, {**row, "reward": 3}))
    assert message == "al-eval: <stdin>:2: another reward of exo, step 1 is at <stdin>:1"
    assert "step: expected a number, got a string" in refused(65, "frontier", stdin=jsonl({**row, "step": "x"}))
    assert "none.json: no such file" in refused(2, "frontier", "a=none.json")
    assert "/: a folder, not a file" in refused(2, "frontier", "a=/")


def test_table(tmp_path):
    sft = save(tmp_path / "sft.json", {"what": "reward", "reward": mean(0.5), "length": 3})
    oracle = save(tmp_path / "a.json", {"what": "reward", "reward": mean(1.25, 0.04), "words": mean(12, 1, 8)})
    kl = save(tmp_path / "b.json", {"what": "kl", "kl": mean(2, 0.5), "kl_per_token": None})
    names = [f"sft={sft}", f"exo|rw={oracle}", f"exo|rw={kl}"]
    found = evaluate("table", *names)
    assert found["rows"] == [
        {"method": "sft", "reward": mean(0.5), "words": None, "kl": None},
        {"method": "exo|rw", "reward": mean(1.25, 0.04), "words": mean(12, 1, 8), "kl": mean(2, 0.5)},
    ]
    done = call("al-eval", "table", "--markdown", "--columns", "kl,reward,length", *names)
    assert done.stdout == (
        "| method | kl (n = 9) | reward (n = 9) | length |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| sft | - | 0.50 [0.40, 0.60] | 3 |\n"
        "| exo\\|rw | 2.0 [1.5, 2.5] | 1.250 [1.210, 1.290] | - |\n"
    )
    assert "no file has winrate" in refused(2, "table", "--columns", "winrate", *names)


def test_two_logs_of_one_name_are_refused(tmp_path):
    log, other = save(tmp_path / "a.jsonl", {"step": 1, "loss": 2}), save(tmp_path / "a.json", {"step": 1, "loss": 3})
    assert refused(2, "curve", f"x={log}", f"x={other}").startswith("al-eval: x: two logs of one name")
    assert refused(2, "curve", log, other).startswith(f"al-eval: {tmp_path / 'a'}: two logs of one name")
    assert [row["log"] for row in evaluate("curve", f"x={log}", f"y={log}")["logs"]] == ["x", "y"]


def test_curve(tmp_path):
    log = save(tmp_path / "log.jsonl", {"step": 1, "loss": 3.0}, {"step": 1, "eval_accuracy": 0.5},
               {"step": 2, "loss": None}, {"step": 3, "loss": 2}, {"done": True})
    found = evaluate("curve", f"exo={log}", log, "--plot", tmp_path / "c.png", "--smooth", 2)
    figures = {"n": 2, "first": 3.0, "last": 2, "lowest": 2, "highest": 3.0, "other": 2, "null": 1}
    assert found["logs"] == [{"log": "exo", **figures}, {"log": str(tmp_path / "log"), **figures}]
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert refused(65, "curve", "--field", "nothing", log).endswith("no line has nothing")
    assert "<stdin>:1: step: expected a number, got null" in refused(65, "curve", stdin=jsonl({"loss": 1}))
    assert "<stdin>:1: loss: expected a number, got a string" in refused(
        65, "curve", stdin=jsonl({"step": 1, "loss": "x"}))


def test_curves_of_all_fields_that_begin_so(tmp_path):
    log = save(tmp_path / "log", {"step": 1, "lambda_a": 0.5, "lambda_b": 0.5}, {"step": 2, "lambda_b": 1.0},
               {"step": 2, "eval_loss": 1})
    found = evaluate("curve", "--field", "lambda_*", f"more={log}", "--plot", tmp_path / "l.svg")
    assert found["logs"] == [
        {"log": "more", "field": "lambda_a", "n": 1, "first": 0.5, "last": 0.5, "lowest": 0.5, "highest": 0.5,
         "other": 2, "null": 0},
        {"log": "more", "field": "lambda_b", "n": 2, "first": 0.5, "last": 1.0, "lowest": 0.5, "highest": 1.0,
         "other": 1, "null": 0}]
    assert (tmp_path / "l.svg").stat().st_size > 1000
    assert refused(65, "curve", "--field", "lambda_*", stdin=jsonl({"step": 1, "lambda_a": "x"})) == (
        "al-eval: <stdin>:1: lambda_a: expected a number, got a string")
    assert refused(65, "curve", "--field", "mu_*", log).endswith("no line has mu_*")
    assert refused(2, "curve", f"a={log}", f"a={log}", "--field", "lambda_*").endswith("(NAME=FILE gives another)")


# --- what all share ----------------------------------------------------------------------------------------------

ALL = ["reward", "rm", "kl", "text", "frontier", "curve", "table"]


@pytest.mark.parametrize("what", ALL)
def test_empty_input(what):
    done = call("al-eval", what)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["what"] == what
    assert done.stderr.startswith(f"al-eval {what}: 0 records, ") or "records" not in found
    assert all(value == NONE for value in found.values() if isinstance(value, dict))


@pytest.mark.parametrize("what", ALL)
def test_bad_lines(what, tmp_path):
    good = {**record(1, 2), "logps": [1, 2], "ref_logps": [1, 2], "method": "a", "reward": 1, "kl": 1,
            "step": 1, "loss": 2}
    file = save(tmp_path / "data.jsonl", good)
    for bad, why in ((b"{", "broken JSON"), (b"[1]", "expected an object, got an array"), (b'"\xff"', "invalid UTF-8")):
        file.write_bytes(jsonl(good).encode() + b"\n" + bad + b"\n")
        assert refused(65, what, file).startswith(f"al-eval: {file}:3: {why}")


def test_missing_and_wrong_fields():
    for what, field in (("reward", "rewards"), ("reward", "completions"), ("rm", "rewards"), ("kl", "logps"),
                        ("kl", "ref_logps"), ("text", "completions"), ("text", "prompt")):
        row = {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 2], "logps": [1, 2], "ref_logps": [1, 2]}
        gone = {name: value for name, value in row.items() if name != field}
        assert refused(65, what, stdin=jsonl(row, gone)) == f"al-eval: <stdin>:2: {field}: missing"
    message = refused(65, "reward", stdin=jsonl({"prompt": "p", "completions": ["a"], "rewards": [1, 2]}))
    assert message == "al-eval: <stdin>:1: rewards: 2 entries for 1 completions"
    message = refused(65, "reward", stdin='{"prompt": "p", "completions": ["a"], "rewards": [NaN]}\n')
    assert "<stdin>:1: broken JSON" in message


def test_usage():
    assert "--set" in refused(2, "reward", "--set", "nonsense")
    assert "No such command" in refused(2, "nonsense")
    assert "--as words: the result has another words" in refused(2, "reward", "--as", "words")
    assert "does not exist" in refused(2, "reward", "none.jsonl")


def test_set_comes_first_but_never_instead():
    found = evaluate("reward", "--set", "method=exo-rw", "--set", "step=20", "--set", "what=x", stdin=jsonl(record(1)))
    assert list(found)[:4] == ["what", "method", "step", "records"]
    assert (found["what"], found["method"], found["step"]) == ("reward", "exo-rw", 20)


def test_table_on_a_terminal_json_in_a_pipe(tmp_path):
    data = jsonl(*(record(i, i + 1) for i in range(4)))
    shown = call("al-eval", "reward", "--table", stdin=data).stdout
    assert shown.splitlines()[0].split() == ["figure", "value", "n"]
    assert any(line.split()[0] == "reward" and line.split()[-1] == "8" for line in shown.splitlines())
    # A real terminal as standard output gives the same table.
    mine, theirs = pty.openpty()
    subprocess.run(command("al-eval", "reward"), input=data.encode(), stdout=theirs, stderr=subprocess.DEVNULL,
                   env=environment(), check=True)
    os.close(theirs)
    assert os.read(mine, 1 << 16).decode().replace("\r\n", "\n") == shown
    os.close(mine)
    # A file gets JSON.
    done = call("al-eval", "reward", "-o", tmp_path / "out.json", stdin=data)
    assert done.stdout == "" and json.loads((tmp_path / "out.json").read_text())["records"] == 4


def test_figures_in_a_table_agree_with_the_json():
    data = jsonl(*(record(i % 5, 1, prompt=f"p{i}") for i in range(50)))
    found = evaluate("rm", stdin=data)["accuracy"]
    row = next(line for line in call("al-eval", "rm", "--table", stdin=data).stdout.splitlines() if "accuracy" in line)
    assert row.split() == ["accuracy", f"{found['mean']:.2f}", f"[{found['low']:.2f},", f"{found['high']:.2f}]", "50"]


@pytest.mark.parametrize("what", [[], *([what] for what in ALL)])
def test_help_and_schema(what):
    done = call("al-eval", *what, "--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: al-eval")
    if what:
        assert "Streams" in done.stdout or "Reads all input first" in " ".join(done.stdout.split())
        json.loads(call("al-eval", *what, "--schema").stdout)


def test_help_loads_nothing_heavy():
    code = ("import sys; import al_eval; "
            "print(sorted({'torch', 'numpy', 'matplotlib', 'transformers', 'datasets'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kl_of_records_without_ids_has_no_figure_a_token():
    record = {"prompt": "p", "completions": ["a", "b"], "finish_reasons": ["stop", "length"], "logps": [-1, -2],
              "ref_logps": [-2, -2]}
    done = call("al-eval", "kl", "--json", stdin=json.dumps(record) + "\n")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kl"]["mean"] == 0.5 and result["kl_per_token"] is None


def test_a_label_does_not_take_the_place_of_a_figure():
    record = {"prompt": "p", "completions": ["a"], "rewards": [1]}
    done = call("al-eval", "reward", "--as", "method", "--set", "method=a", stdin=json.dumps(record) + "\n")
    assert done.returncode == 2 and "--set method" in done.stderr


def test_the_input_is_not_the_output(tmp_path):
    data = tmp_path / "x.jsonl"
    data.write_text('{"prompt": "p", "completions": ["a"], "rewards": [1]}\n')
    before = data.read_bytes()
    for output in (data, tmp_path / "none" / "x.json"):
        assert call("al-eval", "reward", data, "-o", output).returncode == 2
    assert data.read_bytes() == before


def test_a_win_rate_by_the_share_of_the_prompts(tmp_path):
    rows = [{"method": "sft", "step": share, "share": share, "winrate": share / 200} for share in (60, 10)]
    done = call("al-eval", "frontier", "--cost", "share", "--reward", "winrate", "--plot", tmp_path / "plot.png",
                "--json", stdin=jsonl(*rows))
    assert done.returncode == 0 and (tmp_path / "plot.png").stat().st_size > 1000, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [(point["share"], point["reward"]) for point in points] == [(10, 0.05), (60, 0.3)]


def test_reward_against_seconds(tmp_path):
    """text gives the mean of what --time wrote; frontier takes it for KL."""
    records = [{"prompt": "p", "completions": ["a b c d e"], "rewards": [1.0], "seconds": [0.25]},
               {"prompt": "q", "completions": ["f g h i j"], "rewards": [3.0], "seconds": [0.75]}]
    data = "".join(json.dumps(record) + "\n" for record in records)
    rows = ""
    for what in ("text", "reward"):
        done = call("al-eval", what, "--json", "--set", "method=greedy", stdin=data)
        assert done.returncode == 0, done.stderr
        rows += done.stdout
    assert json.loads(rows.splitlines()[0])["seconds"]["mean"] == 0.5
    done = call("al-eval", "frontier", "--cost", "seconds", "--plot", tmp_path / "plot.png", "--json", stdin=rows)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["seconds"]["mean"] == 0.5 and point["reward"]["mean"] == 2.0
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert "no kl" in call("al-eval", "frontier", "--json", stdin=rows).stderr
