"""Weights in parts: told by what DeepSpeed marks them with; with ranks in tests/alignlib/test_ranks.py."""

from contextlib import nullcontext

from alignlib.models.shards import gather_weights, is_sharded
from helpers import tiny


def test_whole_weights_are_gathered_by_nothing():
    model = tiny.causal("llama")
    assert not is_sharded(model)
    for change in (False, True):
        assert isinstance(gather_weights(model.parameters(), change=change), nullcontext)


def test_one_weight_in_parts_tells_the_model():
    model = tiny.causal("llama")
    model.model.norm.weight.ds_id = 0
    assert is_sharded(model)
