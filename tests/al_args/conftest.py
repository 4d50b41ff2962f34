"""The end of many texts, for the decoders' tests."""

import pytest

from al_args import token_by_token
from alignlib.decoding import sampler
from helpers import tiny


@pytest.fixture
def many_ends(monkeypatch):
    """Every twentieth token ends a text, so that rows leave and ends are candidates all the time."""
    ends = set(range(0, tiny.VOCABULARY, 20))
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: ends)
    monkeypatch.setattr(token_by_token, "stopping_ids", lambda encoder, stop: ends)
    return ends
