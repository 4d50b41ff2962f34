"""Whether the Hugging Face Hub can be reached: its client, asked without a network, retries for half a minute."""

import os
import socket
from urllib.parse import urlsplit


def answers() -> bool:
    """Ask its host once. Behind a proxy the host need not be known here, so nothing is asked."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    end = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((end.hostname, end.port or (80 if end.scheme == "http" else 443)), timeout=5).close()
    except OSError:
        return False
    return True
