"""MORE: one reward model for many preferences, whose domains are weighed by their gradients at its head.

For each domain t of a step, with g_t the gradient of its mean ranking loss l_t by the reward head alone:

    m_t <- (1 - alpha) m_t + alpha g_t
    n_t  = m_t, normalised
    lambda = the point of the simplex with the least |sum_t lambda_t n_t|^2

Source: Zeng et al. 2023 (arXiv 2312.07401). Momentum starts at zero; the authors' code starts it at the head's random
weights, which are no gradient. Their solver takes Frank-Wolfe steps, cut off at the vertices; here it is exact.
"""

import torch
from torch import Tensor

NORMALIZERS = ("none", "l2", "loss", "loss+")


def head_gradients(by_score: Tensor, embeddings: Tensor, domain: Tensor, domains: int) -> Tensor:
    """The gradient by a linear head of each domain's loss: [N], [N, H], [N] numbers of domains -> [domains, H].

    by_score: the loss's gradient by each score; a score is the head's product with its embedding.
    """
    sums = embeddings.new_zeros(domains, embeddings.shape[1])
    return sums.index_add(0, domain, by_score[:, None] * embeddings)


def normalised(gradients: Tensor, losses: Tensor, kind: str) -> Tensor:
    """Gradients [T, H] of comparable length, by their own or by their losses [T]; a norm or a loss of 0 counts as 1.

    none m, l2 m / |m|, loss m / ((l + 1) / sum(l + 1)), loss+ m / (|m| l)
    """
    norms = gradients.norm(dim=1)
    norms = torch.where(norms > 0, norms, 1)
    by = {"none": torch.ones_like(norms), "l2": norms, "loss": (losses + 1) / (losses + 1).sum(),
          "loss+": norms * torch.where(losses > 0, losses, 1)}[kind]
    return gradients / by[:, None]


def weights(vectors: Tensor) -> Tensor:
    """The point of the simplex whose combination of `vectors` [T, H] is shortest: [T], float64.

    All zero: 1 / T each. Not finite: NaN, for the trainer to find in the loss.

    Least squares that may not be negative: min over x >= 0 of |V'x|^2 + (1'x - 1)^2 is, along each ray x = s lambda,
    |V'lambda|^2 / (1 + |V'lambda|^2) at best, so x / sum(x) is the point. Solved by scipy's nnls.
    """
    from scipy.optimize import nnls

    vectors = vectors.double()
    longest = vectors.norm(dim=1).max()
    if longest == 0 or not longest.isfinite():
        return vectors.new_full((len(vectors),), 1 / len(vectors) if longest == 0 else float("nan"))
    columns = (vectors / longest).T
    found, _ = nnls(torch.cat([columns, columns.new_ones(1, len(vectors))]).numpy(), [0.0] * len(columns) + [1.0])
    found = torch.from_numpy(found)
    return found / found.sum()
