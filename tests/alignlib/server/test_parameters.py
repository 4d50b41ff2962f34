"""--parameters: what is an object, what is the command's to say, what null does."""

import click
import pytest

from alignlib.server.parameters import read_parameters, with_parameters


@pytest.mark.parametrize(("text", "words"), [
    ("{", "--parameters: broken JSON"), ("[]", "--parameters: expected an object"),
    ("null", "--parameters: expected an object"), ('{"n": 2, "model": "m"}', "--parameters: model is this command's"),
])
def test_what_is_refused(text, words):
    with pytest.raises(click.UsageError, match=words):
        read_parameters(text, ("model", "n"))


def test_they_go_into_a_request_or_take_something_out():
    parameters = read_parameters('{"seed": null, "top_p": 0.5, "max_tokens": 3}', ("model",))
    assert with_parameters({"model": "m", "seed": 1, "max_tokens": 9}, parameters) == {
        "model": "m", "max_tokens": 3, "top_p": 0.5}
