"""Whether the Hugging Face Hub can be reached: its client, asked without a network, retries for half a minute."""

import os
import socket
from urllib.parse import urlsplit

from alignlib import waits

_silent: set[str] = set()  # hosts that did not answer: to ask each again would be seconds of nothing


def answers() -> bool:
    """Ask its host, again only where it has answered; behind a proxy, where it need not be known here, ask nothing."""
    if forbidden():
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    end = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if end.netloc in _silent:
        return False
    try:
        with waits.doing(f"asking whether {end.netloc} answers"):
            port = end.port or (80 if end.scheme == "http" else 443)
            socket.create_connection((end.hostname, port), timeout=5).close()
    except OSError:
        _silent.add(end.netloc)
        return False
    return True


def forbidden() -> str | None:
    """The setting that forbids to ask it, as its client reads it: "HF_HUB_OFFLINE=1"."""
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    value = os.environ.get(name, "")
    return f"{name}={value}" if value.upper() in {"1", "ON", "YES", "TRUE"} else None
