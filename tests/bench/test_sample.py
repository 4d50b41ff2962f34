"""al-sample's generation: new tokens a second beside transformers' own `generate`, and with prompts computed once."""

import time
from collections.abc import Callable

import pytest
import torch

from alignlib.decoding import sampler
from alignlib.models import load
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


def prompts(count: int, length: int) -> list[list[int]]:
    return torch.randint(10, 300, (count, length), generator=torch.Generator().manual_seed(0)).tolist()


def ours(policy: load.Policy, rows: list[tuple[int, int, list[int]]]) -> Callable[[], int]:
    """`rows` are (record, number, prompt): the prompt of a record is computed once."""
    encoder = load.encoder_for(policy)
    return lambda: sampler.generate(policy, encoder, [sampler.Draw(*row, temperature=1.0) for row in rows],
                                   sampler.Sampling(NEW))


def theirs(policy: load.Policy, rows: list[list[int]]) -> Callable[[], int]:
    ids = torch.tensor(rows)
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW, "eos_token_id": None}
    return lambda: policy.core.generate(ids, attention_mask=torch.ones_like(ids), **settings)[:, ids.shape[1]:].numel()


def seconds(*ways: Callable[[], int]) -> list[float]:
    """The quickest round of each, in seconds of processor time; the ways take turns and must draw equally much."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        drawn = []
        for i, way in enumerate(ways):
            start = time.process_time()
            drawn.append(way())
            best[i] = min(best[i], time.process_time() - start)
        assert len(set(drawn)) == 1
    return best


@pytest.mark.parametrize("batch", [8, 32])
def test_against_generate(policy, batch):
    rows = prompts(batch, 64)
    mine, their = seconds(ours(policy, [(i, 0, row) for i, row in enumerate(rows)]), theirs(policy, rows))
    tokens = batch * NEW
    print(f"\nbatch {batch:2}: {tokens / mine:5.0f} tokens/s, transformers' generate {tokens / their:5.0f}: "
          f"{their / mine:.2f}x")
    assert their / mine > 0.9


def test_prompts_are_computed_once(policy):
    rows = prompts(2, 256)
    each = [(record, number, row) for record, row in enumerate(rows) for number in range(8)]
    apart = [(i, 0, row) for i, (_, _, row) in enumerate(each)]
    once, again, their = seconds(ours(policy, each), ours(policy, apart), theirs(policy, [row for *_, row in each]))
    tokens = len(each) * NEW
    print(f"\n8 completions of a prompt of 256: {tokens / once:5.0f} tokens/s"
          f"\n  computed for each: {tokens / again:5.0f}: {again / once:.2f}x"
          f"\n  transformers' generate: {tokens / their:5.0f}: {their / once:.2f}x")
    assert again / once > 1.3
