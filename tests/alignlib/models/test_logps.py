"""Log-probabilities of a head over hidden states: in chunks, in float32; the RLAIF study's."""

import json
import math

import pytest
import torch

from alignlib import ranks
from alignlib.models import logps
from alignlib.models.example import Example
from alignlib.models.packs import pack


def test_chunks_change_neither_numbers_nor_gradients(monkeypatch):
    """And the head never sees more rows than a chunk holds, forward or backward."""
    torch.manual_seed(0)
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(23, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (23,))
    rows = []

    def head(part):
        rows.append(len(part))
        return part @ weight.T

    whole = logps.token_logps(head, hidden, targets, 11, 0.7)
    plain = (hidden @ weight.T / 0.7).log_softmax(-1)[torch.arange(23), targets]
    torch.testing.assert_close(whole, plain)
    wanted = torch.autograd.grad(whole.exp().sum(), (hidden, weight))
    monkeypatch.setattr(logps, "CHUNK", 5 * 11)
    rows.clear()
    chunked = logps.token_logps(head, hidden, targets, 11, 0.7)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(chunked.exp().sum(), (hidden, weight)), wanted)
    assert max(rows) == 5 and sum(rows) == 2 * 23, rows  # made in the forward pass, and again in the backward one
    with torch.no_grad():
        rows.clear()
        torch.testing.assert_close(logps.token_logps(head, hidden, targets, 11, 0.7), whole)
        assert max(rows) == 5 and sum(rows) == 23


@pytest.mark.parametrize(("number", "theirs", "sizes"), [(0, 12, [0, 0, 0]), (7, 12, [5, 2, 0]), (12, 7, [5, 5, 2]),
                                                         (3, 5, [3]), (0, 0, [0])])
def test_ranks_in_step_ask_the_head_equally_often(number, theirs, sizes, monkeypatch):
    """Forward, and again in the backward pass: ZeRO 3 gathers its weights each time, from all of them."""
    torch.manual_seed(0)
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(number, 6, dtype=torch.float64, requires_grad=True)
    targets, rows = torch.randint(0, 11, (number,)), []
    monkeypatch.setattr(logps, "CHUNK", 5 * 11)
    monkeypatch.setattr(ranks, "gather", lambda mine: [mine, range(0, theirs or 1, 5)])

    def head(part):
        rows.append(len(part))
        return part @ weight.T

    found = logps.token_logps(head, hidden, targets, 11, in_step=True)
    gradients = torch.autograd.grad(found.exp().sum(), (hidden, weight))
    assert rows == [*sizes, *(sizes[::-1] if len(sizes) > 1 else [])]
    wanted = (hidden @ weight.T).log_softmax(-1)[torch.arange(number), targets]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted.exp().sum(), (hidden, weight)))
    with torch.no_grad():
        rows.clear()
        torch.testing.assert_close(logps.token_logps(head, hidden, targets, 11, in_step=True), wanted)
    assert rows == sizes


def test_half_precision_logits_are_normalised_in_float32():
    hidden = torch.tensor([[8.0, 0.0078125, 0.0]], dtype=torch.bfloat16)
    actual = logps.token_logps(torch.nn.Identity(), hidden, torch.tensor([1]), 3)
    assert actual.dtype == torch.float32
    wanted = torch.tensor([0.0078125 - math.log(math.exp(8.0) + math.exp(0.0078125) + 1)], dtype=torch.float64)
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-6, check_dtype=False)
    assert logps.token_logps(torch.nn.Identity(), hidden[:0], torch.tensor([], dtype=torch.long), 3).shape == (0,)


def test_batch_logps(fixtures):
    """Labels are -100 where a token is not counted; the rest is one completion's tokens. Mean: ours by counts()."""
    for line in (fixtures / "dpo-rlaif" / "batch_logps.jsonl").read_text().splitlines():
        case = json.loads(line)
        logits, labels = torch.tensor(case["logits"], dtype=torch.float64), torch.tensor(case["labels"])
        # Position t of the logits predicts label t + 1: the first label is never counted.
        owner, at = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        batch = pack([Example([1], [[]]) for _ in labels])
        batch.owner, batch.targets = owner, labels[owner, at + 1]
        tokens = logps.token_logps(lambda hidden: hidden, logits[owner, at], batch.targets, logits.shape[-1])
        sums = batch.sums(tokens)[:, 0]
        torch.testing.assert_close(sums.tolist(), case["sum_logps"], rtol=1e-9, atol=1e-9)
        means = (sums / batch.counts()[:, 0]).tolist()
        wanted = [float("nan") if mean == "NaN" else mean for mean in case["mean_logps"]]
        torch.testing.assert_close(means, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)
