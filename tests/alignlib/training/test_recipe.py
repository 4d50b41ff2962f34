"""What a training run is told, as its encoder and its run folder read it."""

import dataclasses

import pytest

from alignlib.models.encoding import Encoder
from helpers import tiny


def test_limits_are_an_encoders():
    limits = tiny.recipe("x", max_length=9, max_prompt=5, keep_prompt="start", on_long="skip").limits
    assert limits == {"max_length": 9, "max_prompt": 5, "max_completion": None, "keep": "start", "on_long": "skip",
                      "template": None, "template_args": (), "control_tokens": False}
    Encoder(tiny.tokenizer(), **limits)


def test_a_recipe_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.recipe("x").lr = 1.0
