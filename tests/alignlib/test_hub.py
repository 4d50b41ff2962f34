"""Whether the Hub answers: told from the environment, or by one connection to its host."""

import socket

import pytest

from alignlib import hub


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY",
                 "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "_silent", set())


@pytest.mark.parametrize(("name", "value", "asked"), [
    ("HF_HUB_OFFLINE", "1", False), ("TRANSFORMERS_OFFLINE", "yes", False), ("HF_HUB_OFFLINE", "0", True),
    ("HF_HUB_OFFLINE", "", True),
])
def test_offline_is_no_as_its_client_reads_it(name, value, asked, monkeypatch):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert hub.answers() == asked
    assert hub.forbidden() == (None if asked else f"{name}={value}")


def test_behind_a_proxy_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", None)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert hub.answers()


def test_the_host_is_the_endpoints(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.answers()
    assert not hub.answers()


def test_who_did_not_answer_is_asked_once(monkeypatch):
    """Each time would be five seconds of nothing, of which loading a model has four."""
    asked = []

    def silent(address, timeout):
        asked.append(address)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    assert [hub.answers() for _ in range(4)] == [False] * 4
    monkeypatch.setenv("HF_ENDPOINT", "http://other:81")
    assert [hub.answers() for _ in range(4)] == [False] * 4
    assert asked == [("huggingface.co", 443), ("other", 81)]
