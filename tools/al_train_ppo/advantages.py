"""How much better an answer was than expected: advantages of PPO, RLOO and GRPO, as pure functions.

[A, T] is A answers of at most T tokens, 0 behind an answer's last; [E, K] is E prompts with K answers each.
"""

import torch
from torch import Tensor


def token_rewards(scores: Tensor, old: Tensor, reference: Tensor, lengths: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef (log pi_old - log pi_ref) at every token, and an answer's score at its last one: [A, T].

    scores and lengths are [A], the log-probabilities [A, T]. Of an answer without tokens the score stands at the first
    place, which is none of its own.

    Source: Ouyang et al. 2022 (arXiv 2203.02155); DeepSpeed-Chat, where the last token is the end of the sequence.
    """
    rewards = -kl_coef * (old - reference)
    return rewards.scatter_add(1, (lengths - 1).clamp(min=0)[:, None], scores[:, None])


def generalized(rewards: Tensor, values: Tensor, gamma: float, smoothing: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and the returns (advantage + value) of every token: [A, T] each.

    values  the critic's, read before each token is written
    Source: Schulman et al. 2015 (arXiv 1506.02438); smoothing is its lambda.
    """
    after = torch.zeros_like(values[:, 0])
    following, steps = after, []
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + gamma * following - values[:, t]
        after = surprise + gamma * smoothing * after
        following = values[:, t]
        steps.append(after)
    advantages = torch.stack(steps[::-1], 1)
    return advantages, advantages + values


def leave_one_out(returns: Tensor) -> Tensor:
    """What each answer gained over the mean of the prompt's other ones: [E, K] -> [E, K].

    Source: RLOO, Ahmadian et al. 2024 (arXiv 2402.14740).
    """
    others = returns.shape[1] - 1
    return returns - (returns.sum(1, keepdim=True) - returns) / others


def group_relative(scores: Tensor, *, scaled: bool = True) -> Tensor:
    """Each answer's distance from the mean of its prompt's, in their deviations (n - 1) where `scaled`: [E, K].

    Source: GRPO, Shao et al. 2024 (arXiv 2402.03300); not scaled, Dr. GRPO (arXiv 2503.20783).
    """
    apart = scores - scores.mean(1, keepdim=True)
    return apart / (scores.std(1, keepdim=True) + 1e-4) if scaled else apart


def whitened(numbers: Tensor) -> Tensor:
    """The numbers less their mean, over their deviation: [N] -> [N]."""
    return (numbers - numbers.mean()) / (numbers.std(correction=0) + 1e-8)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """The share of the returns' variance that the values know of: 1 at best, below 0 where a constant knew more."""
    variance = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / variance) if variance > 0 else 0.0
