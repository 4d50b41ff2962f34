"""What tests/bench/test_gpu.py measures on a GPU, with a tiny model: so that it runs the first time there is one."""

import time

import pytest
import torch

from alignlib.decoding import sampler
from alignlib.models import attention
from helpers import drawing, steps
from helpers.plain import dense

TINY = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 0,
        "pad_token_id": 1}


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(attention, "kernel", lambda device: dense)  # flex_attention has no way back on the CPU
    model = steps.policy(TINY, "cpu")
    model.flat = attention.use_flex(model.core)
    return model


def test_operations_are_counted(model):
    """By hand: a group of prompt 3 and two completions of 2, twice."""
    work = steps.Work(3, 2, 2, 2)
    body = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48)  # two layers: q and o, k and v, the three of the MLP
    pairs = 1 + 2 + 3 + 2 * (4 + 5)  # tokens that each token sees, itself included
    assert work.flops(model.core) == 2 * (6 * (body * 7 + 50 * 32 * 4) + 12 * 2 * 32 * pairs)
    assert work.data_tokens == 20 and steps.sum_once(work) == 14
    assert steps.Work.holding(3, 2, 2, 45).groups == 4 and steps.Work.holding(3, 2, 2, 1).groups == 1


def test_all_ways_take_steps(model, tmp_path, capsys):
    work = steps.Work.holding(9, 4, 2, 80)
    before = model.core.lm_head.weight.clone()
    meters = steps.ours(model, work, tmp_path, "exo-rw", tuple(steps.WAYS), steps.WARM + 2)
    assert [len(meter.seconds) for meter in meters.values()] == [5, 5, 5] and model.flat
    assert not torch.equal(before, model.core.lm_head.weight)
    rate, used = steps.report("flat", meters["flat"], work, work.flops(model.core))
    assert rate > 0 and used is None and "cpu, 9 + 4, K = 2, flat" in capsys.readouterr().out


def test_rates_leave_out_the_warm_up():
    meter = steps.Meter("cpu")
    meter.seconds = [100.0] * steps.WARM + [2.0, 1.0, 4.0]
    assert meter.rate(30) == 15


def test_trl_takes_steps(model, tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed here")
    model.core.set_attn_implementation("sdpa")
    meter = steps.theirs(model.core, steps.Work.holding(9, 4, 2, 80), tmp_path, steps.WARM + 2)
    assert len(meter.seconds) == 5 and all(second > 0 for second in meter.seconds)


def test_both_draw_as_much(monkeypatch):
    """Two answers to each of three prompts; a round that draws less would fail."""
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: set())
    model = steps.policy(TINY, "cpu")
    rows = [(record, number, row) for record, row in enumerate(drawing.prompts(3, 9, 50)) for number in range(2)]
    ways = [drawing.sampler_draws(model, rows, 7), drawing.generate_draws(model, [row for *_, row in rows], 7)]
    assert [way() for way in ways] == [6 * 7, 6 * 7]
    assert all(second > 0 for second in drawing.fastest(ways, 1, time.perf_counter))
