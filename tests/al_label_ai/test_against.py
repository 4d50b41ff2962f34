"""Two files of completions, joined by the prompt."""

import pytest

from helpers.commands import lines, one_line, read
from helpers.faulty import Server
from helpers.judging import label, labelled, pairs, right


@pytest.mark.slow
def test_two_files_are_joined_on_the_prompt(tmp_path):
    """In the first one's order and with its other fields, but for those that went with its completions."""
    whole = pairs(6)
    first = [{**record, "completions": record["completions"][:1], "rewards": [1], "human_winner": 0}
             for record in whole[:5]]
    second = [{"prompt": record["prompt"], "chosen": record["completions"][1]} for record in whole[::-1]]
    (tmp_path / "b.jsonl").write_bytes(lines(*second))
    with Server(right) as server:
        done = label(server, first, "--against", tmp_path / "b.jsonl")
        assert read(done.stdout) == [labelled(record) for record in whole[:5]], done.stderr
        assert "1 left over in --against" in one_line(done.stderr)
        missing = label(server, [{"prompt": "x", "completions": ["a"]}], "--against", tmp_path / "b.jsonl")
        assert missing.returncode == 65 and "<stdin>:1: prompt: --against has no record" in one_line(missing.stderr)
        two = label(server, whole, "--against", tmp_path / "b.jsonl")
        assert two.returncode == 65 and "<stdin>:1: completions: expected 1 with --against, got 2" in two.stderr
        (tmp_path / "b.jsonl").write_bytes(lines(*second, second[2]))
        twice = label(server, first, "--against", tmp_path / "b.jsonl")
        assert twice.returncode == 65 and "b.jsonl:7: prompt: a second time" in one_line(twice.stderr)
