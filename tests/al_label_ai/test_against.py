"""Two files of completions, joined by the id, or else by the prompt."""

import pytest

from al_label_ai.against import Partners
from alignlib.records.jsonl import DataError
from helpers.commands import lines, one_line, read
from helpers.faulty import Server
from helpers.judging import label, labelled, pairs, right


@pytest.mark.slow
def test_two_files_are_joined_on_the_prompt(tmp_path):
    """In the first one's order and with its other fields, but for those that went with its completions."""
    whole = pairs(6)
    first = [{**record, "completions": record["completions"][:1], "rewards": [1], "human_winner": 0}  # with an id
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


@pytest.mark.slow
def test_two_files_are_joined_on_the_id_where_both_have_it(tmp_path):
    """Then each model may have been asked in a form of its own, and one prompt may stand twice."""
    whole = [{**record, "prompt": whole_prompt} for record in pairs(4) for whole_prompt in [pairs(1)[0]["prompt"]]]
    first = [{**record, "completions": record["completions"][:1]} for record in whole]
    second = [{"id": record["id"], "messages": [{"role": "user", "content": "Hi"}],
               "completions": record["completions"][1:]} for record in whole[::-1]]
    (tmp_path / "b.jsonl").write_bytes(lines(*second))
    with Server(right) as server:
        done = label(server, first, "--against", tmp_path / "b.jsonl")
    made = read(done.stdout)
    assert [(record["id"], record["prompt"], record["completions"]) for record in made] == [
        (record["id"], record["prompt"], record["completions"]) for record in whole], done.stderr
    assert "left over" not in done.stderr


def record(prompt: str, completion: str, **more: object) -> dict:
    return {"prompt": prompt, "completions": [completion], **more}


def partners(path, *records: dict) -> Partners:
    path.write_bytes(lines(*records))
    return Partners(str(path))


def test_the_prompt_tells_where_no_id_does(tmp_path):
    """One file has none, or its own."""
    others = partners(tmp_path / "b", record("p", "1", id="x"), record("q", "2"), record("r", "3", id=7))
    assert others.left_over() == 3
    for mine, completion in (
        (record("p", "a"), "1"), (record("p", "a", id="mine"), "1"), (record("q", "a", id="z"), "2"),
        (record("elsewhere", "a", id="x"), "1"), (record("r", "a", id=7), "3"), (record("r", "a", id=None), "3"),
    ):
        assert others.join(mine)["completions"] == ["a", completion]
    assert others.left_over() == 0


def test_what_cannot_be_told_apart_is_named(tmp_path):
    twice = (record("p", "1", id="x"), record("p", "2", id="y"))
    others = partners(tmp_path / "b", *twice, record("q", "3", id="z"))
    for mine, words in ((record("p", "a"), "prompt: --against has 2 records with it, and none with the id"),
                        (record("q", "a", id="x"), "id: --against has it with another prompt"),
                        (record("s", "a", id="w"), "prompt: --against has no record with it, nor with the id"),
                        (record("s", "a"), "prompt: --against has no record with it$")):
        with pytest.raises(ValueError, match=words):
            others.join(mine)
    for bad, words in ((record("p", "3"), "b:3: prompt: a second time"),
                       (record("s", "3", id="x"), "b:3: id: a second time")):
        with pytest.raises(DataError, match=words):
            partners(tmp_path / "b", *twice, bad)
    with pytest.raises(DataError, match="b:2: prompt: a second time"):
        partners(tmp_path / "b", record("p", "1"), record("p", "2", id="y"))
