"""What a training run is told, as its encoder and its run folder read it."""

import dataclasses

import pytest

from alignlib.models.encoding import Encoder
from alignlib.training.recipe import wants_deepspeed
from helpers import tiny


def test_limits_are_an_encoders():
    limits = tiny.recipe("x", max_length=9, max_prompt=5, keep_prompt="start", on_long="skip").limits
    assert limits == {"max_length": 9, "max_prompt": 5, "max_completion": None, "keep": "start", "on_long": "skip",
                      "template": None, "template_args": (), "control_tokens": False}
    Encoder(tiny.tokenizer(), **limits)


def test_a_recipe_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.recipe("x").lr = 1.0


@pytest.mark.parametrize("changes", [{"zero": 0}, {"offload": "optimizer"}, {"deepspeed": "ds.json"}])
def test_any_of_its_options_asks_for_deepspeed(changes, monkeypatch):
    assert wants_deepspeed(tiny.recipe("x", **changes)) and not wants_deepspeed(tiny.recipe("x"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert wants_deepspeed(tiny.recipe("x"))
