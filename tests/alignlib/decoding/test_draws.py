"""What samplers share: where a text stops, what a prompt leaves room for, seeds and temperatures."""

import click
import pytest

from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import (
    Draw,
    Sampling,
    cut_at_stops,
    encoder_limits,
    finish_text,
    prompt_ids,
    seed_for,
    stop_place,
)
from alignlib.models.encoding import Encoder
from helpers import tiny

ROOM = {"max_prompt": None, "keep_prompt": "end", "on_long": "truncate"}


@pytest.mark.parametrize("text, stop, place", [
    ("a b", (), None), ("a b", ("c",), None), ("a b b", ("b",), 2), ("a b c", ("c", "b"), 2), ("ab", ("b", "ab"), 0)])
def test_the_first_stop_string_ends_a_text(text, stop, place):
    assert stop_place(text, stop) == place


def test_cut_at_stops():
    record = {"id": "x", "prompt": "Q", "completions": [" yes. No", " no"], "finish_reasons": ["length", "length"],
              "completion_ids": [[1], [2]], "logps": [-1.0, -2.0], "logps_temperature": 0.7, "temperatures": [0.7, 1.0]}
    assert cut_at_stops(record, ("!",)) is record
    assert cut_at_stops(record, (".",)) == {"id": "x", "prompt": "Q", "completions": [" yes", " no"],
                                            "finish_reasons": ["stop", "length"], "temperatures": [0.7, 1.0]}
    assert "finish_reasons" not in cut_at_stops({"prompt": "Q", "completions": ["a."]}, (".",))


def test_a_done_draw_ends_at_a_stop_string():
    encoder = Encoder(tiny.tokenizer(), max_length=64)
    draw = Draw(0, 0, [], 1.0, ids=encoder.completion(" yes. No"), reason="length")
    finish_text(draw, encoder, ("!",))
    assert (draw.text, draw.reason) == (" yes. No", "length")
    finish_text(draw, encoder, (".",))
    assert (draw.text, draw.reason) == (" yes", "stop") and encoder.tokens.decode(draw.ids) == " yes"


def test_new_tokens_have_their_room():
    limits = encoder_limits(64, Sampling(24), **ROOM)
    assert limits == {"max_length": 64, "max_prompt": 40, "max_completion": 25, "keep": "end", "on_long": "truncate"}
    assert encoder_limits(64, Sampling(24), **{**ROOM, "max_prompt": 8})["max_prompt"] == 8
    assert encoder_limits(64, Sampling(24), **{**ROOM, "max_prompt": 60})["max_prompt"] == 40
    with pytest.raises(click.UsageError, match="--max-new-tokens 64: the model's context is 64 tokens"):
        encoder_limits(64, Sampling(64), **ROOM)


def test_the_prompt_to_sample_from():
    encoder = Encoder(tiny.tokenizer(), max_length=64, max_prompt=6)
    assert encoder.tokens.decode(prompt_ids(encoder, {"prompt": "a b"}, None)) == "a b"
    assert encoder.tokens.decode(prompt_ids(encoder, {"prompt": "xyz"}, Condition(("C:",)))) == "C:xyz"
    assert encoder.tokens.decode(prompt_ids(encoder, {"prompt": "uvwxyz"}, Condition(("C:",)))) == "C:xyz"  # it stays
    with pytest.raises(ValueError, match="prompt"):
        prompt_ids(encoder, {"completions": []}, None)


def test_seeds_are_a_completions_own():
    seeds = [seed_for(seed, record, number, 31) for seed in range(3) for record in range(9) for number in range(5)]
    assert len(set(seeds)) == len(seeds) and 0 <= min(seeds) and max(seeds) < 2**31
    assert seeds[0] == seed_for(0, 0, 0, 31) == seed_for(0, 0, 0, 64) >> 33


@pytest.mark.parametrize("temperatures, temperature", [
    ((1.0,), 1.0), ((0.7, 0.7), 0.7), ((0.7, 1.3), 1.0), ((0.0,), 1.0)])
def test_the_temperature_of_log_probabilities(temperatures, temperature):
    assert Sampling(8, temperatures=temperatures).logps_temperature == temperature
