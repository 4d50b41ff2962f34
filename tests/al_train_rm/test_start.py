"""What a reward model begins with: a policy's body under a new head."""

import torch

from al_train_rm import start
from helpers import tiny


def test_a_new_head_is_small_and_a_function_of_the_seed(tmp_path):
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    one, same, other = (start.new_reward(folder, None, "cpu", "fp32", seed).core.score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (1, 32) and 0.5 < one.std().item() * 33 ** 0.5 < 1.5
    classes = start.new_reward(folder, ["bad", "good"], "cpu", "fp32").core
    assert classes.score.weight.shape == (2, 32) and classes.config.id2label == {0: "bad", 1: "good"}
