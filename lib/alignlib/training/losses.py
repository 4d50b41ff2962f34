"""Losses as pure functions on tensors: no model, no configuration, no state.

Completions of one prompt stand along the last axis: [G, K] is G groups of K. `log_ratio` is log pi - log pi_ref,
each the SUM over a completion's tokens, in nats, both at the same temperature. Every loss gives one number a group, but
for `kto`, which compares none; where a pair is meant, column 0 is the preferred completion.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlib.models.logps import Head, full_precision, in_chunks


def conditional(head: Head, hidden: Tensor, targets: Tensor, vocabulary: int, *, kl_coef: float = 0.0,
                entropy_coef: float = 0.0, reference: tuple[Head, Tensor] | None = None,
                known: int | None = None, in_step: bool = False) -> tuple[Tensor, Tensor]:
    """ALT's loss of each token, -log pi(y) + kl_coef KL(pi_ref || pi) - entropy_coef H(pi), in nats.

    hidden [N, H], targets [N] -> the loss [N]; and, without gradients, its parts [N, 3]: -log pi(y), KL, H.

    reference  its own head, and its hidden states [N, H'] at the same tokens; without it KL is 0
    known      KL is over the first so many ids, both distributions normalised there: Quark's new tokens, which the
               reference does not know, come after them
    in_step    as in_chunks: where ranks must ask the heads equally often

    Like `token_logps` in float32 (or float64), and in chunks: of policy and reference alike the logits never exist as
    a whole. Source: ALT (arXiv 2407.16970), and Quark (arXiv 2205.13636) for the sums over the vocabulary.
    """

    def chunk(part: Tensor, wanted: Tensor, *other: Tensor) -> Tensor:
        logits = full_precision(head(part))  # [n, vocabulary]
        likely = logits.log_softmax(-1)
        nll = -likely.gather(1, wanted[:, None])[:, 0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_coef != 0):
            entropy = -(likely.exp() * likely).sum(-1)
        kl = torch.zeros_like(nll)
        if reference:
            with torch.no_grad():
                reference_logps = full_precision(reference[0](*other))[:, :known].log_softmax(-1)
            policy_logps = likely if known in (None, vocabulary) else logits[:, :known].log_softmax(-1)
            kl = (reference_logps.exp() * (reference_logps - policy_logps)).sum(-1)
        loss = nll + kl_coef * kl - entropy_coef * entropy
        return torch.stack([loss, nll.detach(), kl.detach(), entropy.detach()], 1)

    others = [reference[1]] if reference else []
    parts = in_chunks(chunk, vocabulary, hidden, targets, *others, in_step=in_step)
    return parts[:, 0], parts[:, 1:].detach()


def clipped_ratio(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's loss of each token, or of each answer: max(-A ratio, -A min(max(ratio, 1 - clip), 1 + clip)).

    ratio = pi / pi_old. Source: Schulman et al. 2017 (arXiv 1707.06347), equation 7.
    """
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def clipped_values(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """A critic's loss of each token, 1/2 max((V - R)^2, (V' - R)^2), V' no further from the `old` value than `clip`.

    Source: DeepSpeed-Chat, as in OpenAI's baselines for PPO.
    """
    near = torch.clamp(values, old - clip, old + clip)
    return torch.maximum((values - returns) ** 2, (near - returns) ** 2) / 2


def kl_estimate(logps: Tensor, reference: Tensor) -> Tensor:
    """exp(ref - new) - (ref - new) - 1 of each token: no less than 0, its mean over draws of the policy KL(pi || ref).

    Source: GRPO, Shao et al. 2024 (arXiv 2402.03300), equation 4.
    """
    apart = reference - logps
    return apart.exp() - apart - 1


def adapted(coefficient: float, kl: float, target: float, count: int, horizon: int = 10_000) -> float:
    """A KL coefficient after `count` examples whose KL was `kl`: up where it is over the target, down where under.

    Proportional, the error cut at 20 %. Source: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * count / horizon)


def _log_targets(rewards: Tensor, beta_r: float) -> Tensor:
    """log softmax(rewards / beta_r) over the K completions: [G, K]."""
    return (rewards / beta_r).log_softmax(-1)


def exo_rw(log_ratio: Tensor, rewards: Tensor, beta_pi: float, beta_r: float) -> Tensor:
    """EXO with rewards: KL(p || q), p = softmax(beta_pi log_ratio), q = softmax(rewards / beta_r).

    [G, K], [G, K] -> [G]. Ji et al. 2024 (arXiv 2402.00856), equation 15. Reverse KL: mode-seeking.
    At policy = reference: -log K - mean_j log q_j.
    """
    log_p = (beta_pi * log_ratio).log_softmax(-1)
    return (log_p.exp() * (log_p - _log_targets(rewards, beta_r))).sum(-1)


def exo_pref(log_ratio: Tensor, beta_pi: float, smoothing: float = 0.0) -> Tensor:
    """EXO with preferences: the completion in column 0 is the preferred one of two. [G, 2] -> [G].

    smoothing 0  log q = (0, -10), not normalised, as the authors' code has it
    smoothing e  log q = (log(1 - e), log e), as the paper (section 3.3) has it; 0 < e < 1/2

    At policy = reference: -log 2 - mean_j log q_j, so -log 2 + 5 with the default.
    """
    values = torch.tensor([1 - smoothing, smoothing] if smoothing else [0.0, -10.0], dtype=log_ratio.dtype)
    log_q = (values.log() if smoothing else values).to(log_ratio.device)
    log_p = (beta_pi * log_ratio).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def dpo_rw(log_ratio: Tensor, rewards: Tensor, beta_pi: float, beta_r: float) -> Tensor:
    """DPO with rewards: the cross-entropy -sum_j q_j log p_j, names as in `exo_rw`. [G, K], [G, K] -> [G].

    Ji et al. 2024, equation 10: the forward KL plus a constant. At policy = reference: log K.
    """
    log_p = (beta_pi * log_ratio).log_softmax(-1)
    return -(_log_targets(rewards, beta_r).exp() * log_p).sum(-1)


def dpo_pref(log_ratio: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """DPO: -(1 - e) log sigmoid(beta margin) - e log sigmoid(-beta margin); column 0 is preferred. [G, 2] -> [G].

    Rafailov et al. 2023 (arXiv 2305.18290); smoothing e: Mitchell 2023, "conservative DPO".
    At policy = reference: log 2.
    """
    margin = beta * (log_ratio[..., 0] - log_ratio[..., 1])
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def ipo(log_ratio: Tensor, beta: float) -> Tensor:
    """IPO: (margin - 1 / (2 beta))^2. [G, 2] -> [G]. Azar et al. 2023 (arXiv 2310.12036), equation 17."""
    return (log_ratio[..., 0] - log_ratio[..., 1] - 1 / (2 * beta)).square()


def robust(log_ratio: Tensor, beta: float, smoothing: float) -> Tensor:
    """The RLAIF study's noise-robust DPO: `dpo_pref` with label smoothing, divided by beta. [G, 2] -> [G].

    Sharma et al. 2024 (arXiv 2402.12366). Their code divides only where smoothing > 0; here always.
    """
    return dpo_pref(log_ratio, beta, smoothing) / beta


def simpo(mean_logps: Tensor, beta: float, gamma: float) -> Tensor:
    """SimPO: -log sigmoid(beta (mean log pi(y_w) - mean log pi(y_l)) - gamma); no reference. [G, 2] -> [G].

    mean_logps: a completion's log-probability a token, 0 of an empty one; column 0 is preferred.
    Meng et al. 2024 (arXiv 2405.14734), equation 6. Where both are equally likely: log(1 + exp(gamma)).
    """
    return -logsigmoid(beta * (mean_logps[..., 0] - mean_logps[..., 1]) - gamma)


def orpo(mean_logps: Tensor, orpo_lambda: float) -> Tensor:
    """ORPO: -mean log pi(y_w) - lambda log sigmoid(log odds(y_w) - log odds(y_l)); no reference. [G, 2] -> [G].

    mean_logps: as in `simpo`; the odds are p / (1 - p), p its exponential, at most 1 - 1e-6 (an empty one's is 1).
    Hong et al. 2024 (arXiv 2403.07691), equations 4 to 7. Where both are equally likely: -mean log pi + lambda log 2.
    """
    likely = mean_logps.clamp(max=-1e-6)
    odds = likely - (-likely.expm1()).log()  # log p - log(1 - p)
    return -mean_logps[..., 0] - orpo_lambda * logsigmoid(odds[..., 0] - odds[..., 1])


def kto(log_ratio: Tensor, good: Tensor, beta: float, mismatched: float, good_weight: float = 1.0,
        bad_weight: float = 1.0) -> Tensor:
    """KTO: weight (1 - v), v = sigmoid(+-beta (log_ratio - mismatched)), + of a good completion. [G, K] -> [G, K].

    good: 1 of a good completion, 0 of a bad one; mismatched: the batch's mean log-ratio of answers to other prompts, at
    least 0, an estimate of KL(pi || pi_ref). Ethayarajh et al. 2024 (arXiv 2402.01306), equation 8.
    At policy = reference: half the weight.
    """
    sign, weight = 2 * good - 1, good * good_weight + (1 - good) * bad_weight
    return weight * (-beta * sign * (log_ratio - mismatched)).sigmoid()


def importance(log_ratio: Tensor) -> Tensor:
    """The RLAIF study's weight of a pair: pi / pi_ref of the dispreferred completion, no gradient. [G, 2] -> [G]."""
    return log_ratio[..., 1].exp().detach()


def ranking(scores: Tensor, rewards: Tensor, margin: float = 0.0, soft: float = 0.0) -> Tensor:
    """Sum over the pairs with reward_i > reward_j of -log sigmoid(score_i - score_j). [G, K], [G, K] -> [G].

    Bradley and Terry 1952; for (chosen, rejected) the rewards are (1, 0). Equal rewards make no pair.

    margin m  -log sigmoid(score_i - score_j - m (reward_i - reward_j)): Touvron et al. 2023 (arXiv 2307.09288)
    soft s    the cross-entropy with the probability sigmoid(s (reward_i - reward_j)) that i is better, instead of 1
    """
    apart = rewards[..., :, None] - rewards[..., None, :]  # [G, K, K]
    gaps = scores[..., :, None] - scores[..., None, :]
    if soft:
        likely = (soft * apart).sigmoid()
        loss = -likely * logsigmoid(gaps) - (1 - likely) * logsigmoid(-gaps)
    else:
        loss = -logsigmoid(gaps - margin * apart)
    return (loss * (apart > 0)).sum((-1, -2))


def consistency(values: Tensor, best: Tensor) -> Tensor:
    """(V(y_i | y_<i) - max_v V(v | y_<=i))^2 of each token but a text's last: [N], [N] -> [N]; no gradient to `best`.

    values: what a token was worth before it; best: what the best token after it is worth.
    Rashid et al. 2025 (arXiv 2502.04517).
    """
    return (values - best.detach()).square()
