"""Backends are loaded when they are chosen, and with no more than they need."""

import subprocess
import sys

from helpers.process import environment


def test_it_needs_no_torch():
    """A server is asked."""
    code = ("import sys, al_sample\n"
            "try:\n    al_sample.main(['m', '--backend', 'openai', '--base-url', 'http://localhost'])\n"
            "except SystemExit as end:\n    print(end.code, 'openai' in sys.modules, 'torch' in sys.modules)\n")
    done = subprocess.run([sys.executable, "-c", code], env=environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    assert done.stdout == "0 True False\n", done.stderr
