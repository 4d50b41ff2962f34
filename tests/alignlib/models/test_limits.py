"""What is cut of records that are too long."""

import pytest

from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.limits import TooLong
from alignlib.records.jsonl import Skip
from helpers import tiny


def ids(text):
    return list(text.encode())


def encoder(**limits):
    return Encoder(tiny.tokenizer(), **{"max_length": 20, **limits})


def test_a_prompt_never_takes_the_whole_length():
    """Completions keep their place; the prompt gives way, at the end that is not kept."""
    words = tiny.tokenizer()
    bos, eos = words.bos_token_id, words.eos_token_id
    text = "abcdefghijklmnopqrstuvwxyz"
    end, start = encoder(), encoder(keep="start")
    assert end.encode({"prompt": text}, ["123", "4567"]).prompt == [bos, *ids(text[-14:])]
    assert start.encode({"prompt": text}, ["123", "4567"]).prompt == [bos, *ids(text[:14])]
    assert end.cut == {"prompts_cut": 1, "completions_cut": 0}
    both = encoder(max_prompt=4, max_completion=3)
    example = both.encode({"prompt": text}, ["123456", "7", "89a"])
    assert example == Example([bos, *ids("xyz")], [ids("123"), [*ids("7"), eos], ids("89a")])  # cut: no end-of-sequence
    assert both.cut == {"prompts_cut": 1, "completions_cut": 2}


def test_completions_never_take_the_whole_length_either():
    """Even where --max-completion says so, one token of the prompt stays, and the sum keeps the limit."""
    for limits in ({"max_completion": 20}, {"max_completion": 99}, {"max_length": 2}, {"max_length": 3}):
        example = encoder(**limits).encode({"prompt": "abc"}, ["x" * 50])
        assert len(example.prompt) >= 1 and example.length <= limits.get("max_length", 20), limits


def test_room_for_one_token_holds_the_end_that_is_kept():
    bare = Encoder(tiny.tokenizer(bos=False), max_length=20, max_prompt=1)
    assert bare.encode({"prompt": "abc"}, ["x"]).prompt == ids("c")
    bare.keep = "start"
    assert bare.encode({"prompt": "abc"}, ["x"]).prompt == ids("a")
    with_bos = encoder(max_prompt=1)
    assert with_bos.encode({"prompt": "abc"}, ["x"]).prompt == [with_bos.bos]


def test_too_long_by_choice():
    with pytest.raises(Skip, match="too long: 31 prompt and 2 completion tokens"):
        encoder(on_long="skip").encode({"prompt": "x" * 30}, ["y"])
    with pytest.raises(TooLong, match="limits 18 and 10"):
        encoder(on_long="fail").encode({"prompt": "x" * 30}, ["y"])
    fine = encoder(on_long="fail")
    assert fine.encode({"prompt": "x" * 17}, ["y"]).length == 20
    assert fine.cut == {"prompts_cut": 0, "completions_cut": 0}
