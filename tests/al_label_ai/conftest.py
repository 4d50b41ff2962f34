"""Every test here has a key in its environment, as users have."""

import pytest

from helpers.judging import KEY


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
