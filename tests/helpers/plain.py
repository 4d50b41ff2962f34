"""A model's numbers by its own forward pass, and gradients compared."""

import torch


def plain_logps(model, example, temperature=1.0):
    """[K] sums, in float64, by the model's own forward pass, one completion at a time."""
    sums = []
    for completion in example.completions:
        logits = model(input_ids=torch.tensor([example.prompt + completion])).logits[0] / temperature
        at = torch.arange(len(example.prompt) - 1, len(example.prompt) + len(completion) - 1)
        sums.append(logits.log_softmax(-1)[at, torch.tensor(completion, dtype=torch.long)].sum(dtype=torch.float64))
    return torch.stack(sums)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def same_gradients(actual, wanted, relative):
    """Each weight's gradient, by the norm of the difference."""
    assert actual.keys() == wanted.keys() and len(wanted) > 10
    largest = max(gradient.norm() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert (actual[name] - gradient).norm() <= relative * (gradient.norm() + 1e-3 * largest), name


def dense(query, key, value, *, block_mask, scale, enable_gqa):
    """flex_attention by sdpa, with gradients."""
    assert query.dtype == key.dtype == value.dtype
    query_at, key_at = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=block_mask.mask_mod(None, None, query_at, key_at), scale=scale,
        enable_gqa=enable_gqa)
