"""The policy's and the critic's loss on packs: by hand from the model's own log-probabilities."""

import pytest
import torch

from al_train_ppo.objective import Surrogate, ValueLoss, values_of
from al_train_ppo.rollout import Rollout
from alignlib.models.policy import Policy, RewardModel
from helpers import tiny
from helpers.on_policy import PLAIN, settings

GAINS = [[0.5, -1.0], [2.0, 0.25]]


def examples():
    return [tiny.example(5, 3, 6, seed=1, advantages=GAINS[0]), tiny.example(9, 4, 2, seed=2, advantages=GAINS[1])]


def rollout_of(policy: Policy, shift: float = 0.0, **more) -> Rollout:
    """A rollout whose old policy is this one, with numbers `shift`ed by as much as fits each token's place."""
    rollout = Rollout(examples(), [])
    with torch.no_grad():
        rollout.tokens["old"] = [policy.token_logps(policy.pack([one]), PLAIN["temperature"])
                                 for one in rollout.examples]
    rollout.tokens["reference"] = [numbers - 0.4 for numbers in rollout.tokens["old"]]
    moved = [numbers + shift * torch.linspace(-1, 1, len(numbers)) for numbers in rollout.tokens["old"]]
    rollout.tokens |= {"old": moved, **more}
    return rollout


def policy(**settings) -> Policy:
    return Policy(tiny.causal("llama"), tiny.tokenizer(), **settings)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_first_pass_starts_at_a_ratio_of_exactly_1(family, autocast):
    """In the loss's own packs, also in bf16: the loss is the mean of -A, to the last bit."""
    model = Policy(tiny.causal(family), tiny.tokenizer(), autocast=autocast, train=True)
    objective = Surrogate(settings(kl_coef=0.0, clip_ratio=1e-9))
    batch = model.pack(examples())
    with torch.no_grad():
        whole = model.token_logps(batch, 0.7)
    sizes = batch.counts().sum(1).int().tolist()
    objective.rollout = Rollout(examples(), [], tokens={"old": list(whole.split(sizes))})
    loss, figures = objective(model, batch)
    assert figures["clip_share"].item() == 0
    assert loss.item() == pytest.approx(-sum(map(sum, GAINS)), abs=1e-6)


def test_grpo_by_hand():
    model = policy()
    objective = Surrogate(settings())
    objective.rollout = rollout_of(model, shift=0.5)
    batch = model.pack(examples())
    loss, figures = objective(model, batch)
    wanted, clipped, kl = 0.0, 0.0, torch.e ** -0.4 + 0.4 - 1
    for number, example in enumerate(examples()):
        shifts = torch.linspace(-1, 1, 9 if number == 0 else 6) * 0.5
        for gain, part in zip(GAINS[number], shifts.split([len(c) for c in example.completions]), strict=True):
            ratio = (-part).exp()
            terms = -torch.minimum(gain * ratio, gain * ratio.clamp(0.8, 1.2)) + 0.3 * kl
            wanted += terms.mean().item()
            clipped += ((ratio - 1).abs() > 0.2).float().mean().item() / 2
    assert loss.item() == pytest.approx(wanted, rel=1e-4)
    assert figures["clip_share"].item() == pytest.approx(clipped) and 0 < clipped < 2
    assert figures["kl_loss"].item() == pytest.approx(4 * kl, rel=1e-4)
    assert [objective.size(example) for example in examples()] == [2, 2]


def test_the_mean_is_over_tokens_or_over_a_constant_length():
    model, batch = policy(), policy().pack(examples())
    losses = {}
    for mean, size in (("token", [9, 6]), ("constant", [20, 20])):
        objective = Surrogate(settings(loss_mean=mean, kl_coef=0.0))
        objective.rollout = rollout_of(model)
        assert [objective.size(example) for example in examples()] == size
        losses[mean] = objective(model, batch)[0].item()
    wanted = -(0.5 * 3 - 1.0 * 6 + 2.0 * 4 + 0.25 * 2)
    assert losses == {"token": pytest.approx(wanted, rel=1e-5), "constant": pytest.approx(wanted, rel=1e-5)}


def test_rloo_clips_the_ratio_of_whole_answers():
    """Of the whole answer's probability; at ratio 1 the gradient is that of -A log pi(y)."""
    model = policy()
    objective = Surrogate(settings(method="rloo", loss_mean="token"))
    objective.rollout = rollout_of(model)
    batch = model.pack(examples())
    loss, figures = objective(model, batch)
    assert loss.item() == pytest.approx(-sum(map(sum, GAINS)), rel=1e-5) and figures["clip_share"] == 0
    weight = model.core.model.layers[0].mlp.up_proj.weight
    (gradient,) = torch.autograd.grad(loss, weight)
    plain = -(model.logps(batch, 0.7) * torch.tensor(GAINS)).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, weight)[0], rtol=1e-4, atol=1e-5)
    objective.rollout = rollout_of(model, shift=0.5)
    _, figures = objective(model, batch)
    sums = [torch.linspace(-1, 1, 9).split([3, 6]), torch.linspace(-1, 1, 6).split([4, 2])]
    share = sum((abs((-0.5 * part.sum()).exp() - 1) > 0.2).item() / 2 for row in sums for part in row)
    assert figures["clip_share"].item() == share > 0


def test_ppos_advantages_are_of_tokens():
    model = policy()
    gains = [torch.arange(9.0), -torch.arange(6.0)]
    objective = Surrogate(settings(method="ppo", loss_mean="token"))
    objective.rollout = rollout_of(model, advantages=gains)
    loss, _ = objective(model, model.pack(examples()))
    assert loss.item() == pytest.approx(-36 + 15, rel=1e-5)


def test_the_kls_coefficient_follows_its_target():
    """Ziegler et al.: 20 % of 4 / 10,000 more where the KL is twice the target, by the answers that were drawn."""
    objective = Surrogate(settings(kl_target=2.0, prompts=16))
    objective.rollout = Rollout([], [], scores=torch.zeros(2, 2))  # an epoch's last, of 2 prompts
    entry = {"kl": 4.0}
    objective.stepped(entry)
    assert entry["kl_coef"] == 0.3
    assert objective.kl_coef == pytest.approx(0.3 * (1 + 0.2 * 4 / 10_000), rel=1e-9)
    fixed = Surrogate(settings())
    fixed.stepped({"kl": 4.0})
    assert fixed.kl_coef == 0.3 and not fixed.state


def test_values_are_read_before_each_token():
    """Against the plain model on plain rows; the value loss is then that of its formula."""
    critic = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    batch = critic.pack(examples())
    values = values_of(critic, batch)
    wanted = []
    for example in examples():
        for answer in example.completions:
            ids = torch.tensor([example.prompt + answer])
            hidden = critic.core.model(input_ids=ids).last_hidden_state[0]
            wanted.append(critic.core.score(hidden)[len(example.prompt) - 1:-1, 0])
    torch.testing.assert_close(values, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    loss = ValueLoss(0.2)
    apart = values.detach()
    loss.rollout = Rollout(examples(), [], tokens={"values": list(apart.split([9, 6])),
                                                   "returns": list((apart + 1).split([9, 6]))})
    assert loss(critic, batch)[0].item() == pytest.approx(15 / 2, rel=1e-5)
    assert [loss.size(example) for example in examples()] == [9, 6]


# -- gradients against finite differences ----------------------------------------------------------------------


def slope(loss, weight, direction, step) -> float:
    """How a loss changes when the weight moves along a direction: a central difference."""
    found = []
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * step * direction
            found.append(loss().item())
            weight -= sign * step * direction
    return (found[0] - found[1]) / (2 * step)


def agrees(loss, weight, step) -> None:
    """Along the gradient itself, where the slope is steepest, it is as long as the gradient."""
    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = gradient / gradient.norm()
    assert slope(loss, weight, direction, step) == pytest.approx(gradient.norm().item(), rel=0.01) != 0


@pytest.mark.parametrize(("method", "mean"), [("ppo", "token"), ("ppo", "answer"), ("rloo", "token"),
                                              ("grpo", "answer"), ("grpo", "constant")])
@pytest.mark.parametrize("shift", [0.05, 0.6])
def test_the_policys_gradient_is_the_losss_slope(method, mean, shift):
    """With all ratios near 1, and with some clipped; in float64, but for a ratio of answers and what is returned."""
    model = Policy(tiny.causal("llama").double(), tiny.tokenizer(), train=True)
    gains = [torch.linspace(-1, 2, 9, dtype=torch.float64), torch.linspace(1, -0.5, 6, dtype=torch.float64)]
    objective = Surrogate(settings(method=method, loss_mean=mean))
    objective.rollout = rollout_of(model, shift=shift, **({"advantages": gains} if method == "ppo" else {}))
    batch = model.pack(examples())
    _, figures = objective(model, batch)
    assert (figures["clip_share"] > 0) == (shift > 0.5)
    agrees(lambda: objective(model, batch)[0], model.core.model.layers[0].mlp.up_proj.weight, 1e-3)


@pytest.mark.parametrize("far", [0.05, 1.0])
def test_the_critics_gradient_is_the_losss_slope(far):
    """With values near the old ones, and with some beyond what counts."""
    critic = RewardModel(tiny.classifier("llama"), tiny.tokenizer(), train=True)
    batch, loss = critic.pack(examples()), ValueLoss(0.2)
    with torch.no_grad():
        values = values_of(critic, batch)
    loss.rollout = Rollout(examples(), [], tokens={
        "values": list((values + far * torch.linspace(-1, 1, 15)).split([9, 6])),
        "returns": list((values + torch.linspace(2, 1, 15)).split([9, 6]))})
    agrees(lambda: loss(critic, batch)[0], critic.core.model.layers[0].mlp.up_proj.weight, 3e-3)
