"""--lora: what trains, what a checkpoint holds of it, and the merged model that is saved."""

import pytest
import torch

from al_train_rm.ranking import Ranking
from alignlib.models import load
from alignlib.models.policy import Policy, RewardModel
from alignlib.training.adapters import add_adapters, trained_weights
from helpers import tiny
from helpers.training import examples, fit, same


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_adapters_are_saved_merged(family, tmp_path):
    policy, made = fit(tmp_path / "run", family=family, lora=3, steps=3, save_every=2, keep=0)
    trained = [name for name, weight in policy.model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    example = tiny.example(9, 4, 7)
    loaded = load.load_policy(str(made.folder), "cpu", "fp32")
    with torch.no_grad():
        merged, adapted = (model.logps(model.pack([example])) for model in (loaded, policy))
        given = Policy(tiny.causal(family), tiny.tokenizer())
        torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=0)
        assert (adapted - given.logps(given.pack([example]))).abs().min() > 1e-3
    assert load.load_policy(str(made.folder / "checkpoint-2")).shared


def test_a_reward_models_head_is_trained_beside_its_adapter(tmp_path):
    reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    before = reward.core.score.weight.detach().clone()
    data = examples(8, 5, 3, rewards=[1.0, 0.0])
    _, made = fit(tmp_path / "run", model=reward, data=data, objective=Ranking(), lora=2, steps=4)
    loaded = load.load_reward(str(made.folder), "cpu", "fp32")
    assert (loaded.core.score.weight - before).abs().max() > 1e-3
    with torch.no_grad():
        same(loaded.scores(loaded.pack(data)), reward.scores(reward.pack(data)), 1e-5)


def test_without_a_rank_there_are_none():
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    add_adapters(policy, tiny.recipe("x"))
    assert policy.model is policy.core and trained_weights(policy) == {}
    assert all(weight.requires_grad for weight in policy.model.parameters())


def test_they_start_at_nothing_the_same_for_a_seed_and_on_every_layer_but_the_head():
    def adapted(seed):
        policy = Policy(tiny.causal("llama"), tiny.tokenizer())
        add_adapters(policy, tiny.recipe("x", lora=2, seed=seed))
        return policy

    plain = Policy(tiny.causal("llama"), tiny.tokenizer())
    policy = adapted(0)
    example = tiny.example(9, 4)
    with torch.no_grad():
        same(policy.logps(policy.pack([example])), plain.logps(plain.pack([example])), 1e-6)
    weights = trained_weights(policy)
    linear = [name for name, module in plain.core.named_modules() if isinstance(module, torch.nn.Linear)]
    assert len(weights) == 2 * (len(linear) - 1) and not any("lm_head" in name for name in weights)
    assert all(weight.equal(weights[name]) for name, weight in trained_weights(adapted(0)).items())
    assert not all(weight.equal(weights[name]) for name, weight in trained_weights(adapted(1)).items())
