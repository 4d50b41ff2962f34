"""The contract with vLLM read anew from the released wheel (313 MB, fetched by pip): no figure, but too much for CI."""

import json
import subprocess
import sys

from helpers import vllm_wheel


def test_the_facts_are_the_wheels(tmp_path):
    facts = json.loads(vllm_wheel.FACTS.read_text())
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                    "-d", str(tmp_path), f"vllm=={facts['version']}"], check=True)
    (wheel,) = tmp_path.glob("vllm-*.whl")
    assert vllm_wheel.Wheel(wheel).facts() == facts
