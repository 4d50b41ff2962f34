"""al-sample's generation: new tokens a second beside transformers' own `generate`, and with prompts computed once."""

import time

import pytest

from alignlib.decoding import sampler
from alignlib.models import load
from helpers.drawing import fastest, generate_draws, prompts, sampler_draws
from helpers.process import call

NEW = 64  # tokens a completion; nothing ends early, so that every way does the same work
ROUNDS = 3


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> load.Policy:
    """An untrained Llama of 25M parameters."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "records").write_text(call("al-data", "toy", "--limit", 300).stdout)
    assert call("al-data", "new-model", "--size", "25m", folder / "model", folder / "records").returncode == 0
    return load.load_policy(str(folder / "model"), "cpu", "fp32")


@pytest.fixture(autouse=True)
def endless(monkeypatch):
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: set())


@pytest.mark.parametrize("batch", [8, 32])
def test_against_generate(policy, batch):
    rows = prompts(batch, 64)
    ways = [sampler_draws(policy, [(i, 0, row) for i, row in enumerate(rows)], NEW), generate_draws(policy, rows, NEW)]
    mine, their = fastest(ways, ROUNDS, time.process_time)
    tokens = batch * NEW
    print(f"\nbatch {batch:2}: {tokens / mine:5.0f} tokens/s, transformers' generate {tokens / their:5.0f}: "
          f"{their / mine:.2f}x")
    assert their / mine > 0.9


def test_prompts_are_computed_once(policy):
    rows = prompts(2, 256)
    each = [(record, number, row) for record, row in enumerate(rows) for number in range(8)]
    apart = [(i, 0, row) for i, (_, _, row) in enumerate(each)]
    ways = [sampler_draws(policy, each, NEW), sampler_draws(policy, apart, NEW),
            generate_draws(policy, [row for *_, row in each], NEW)]
    once, again, their = fastest(ways, ROUNDS, time.process_time)
    tokens = len(each) * NEW
    print(f"\n8 completions of a prompt of 256: {tokens / once:5.0f} tokens/s"
          f"\n  computed for each: {tokens / again:5.0f}: {again / once:.2f}x"
          f"\n  transformers' generate: {tokens / their:5.0f}: {their / once:.2f}x")
    assert again / once > 1.3
