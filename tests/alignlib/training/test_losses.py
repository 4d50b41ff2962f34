"""The losses: what the originals compute, numbers worked by hand, closed forms, gradients."""

import json
import math

import pytest
import torch

from alignlib.models import logps
from alignlib.training import losses

HAND = [[math.log(3.0), 0.0]]  # log-ratios of one pair; at beta 1: p = (3/4, 1/4), margin log 3


def cases(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def double(values, **more):
    return torch.tensor(values, dtype=torch.float64, **more)


def close(found, wanted, relative=1e-9):
    torch.testing.assert_close(found, double(wanted), rtol=relative, atol=relative, check_dtype=False)


def itself(hidden):
    return hidden


# -- exact-optimization -----------------------------------------------------------------------------------------


def exo_sums(logits, case):
    """[B]: sums over each row's attended tokens from max(prompt_len, 1) on, by our own token_logps."""
    sums = []
    for row, ids, seen, start in zip(logits, case["input_ids"], case["attention_mask"], case["prompt_lens"],
                                     strict=True):
        first = max(start if start >= 0 else len(ids) + start, 1)  # a negative one counted from the end
        at = [t for t in range(first, len(ids)) if seen[t]]
        wanted = torch.tensor([ids[t] for t in at], dtype=torch.long)
        sums.append(logps.token_logps(itself, row[[t - 1 for t in at]], wanted, row.shape[1], case["temp"]).sum())
    return torch.stack(sums)


def exo_loss(case, ratio):
    """[G] from log-ratios [G, N], by our functions."""
    rewards = double(case["energy_labels"]).view(ratio.shape)
    if case["loss_type"] == "exo-rw":
        return losses.exo_rw(ratio, rewards, case["beta_pi"], case["beta_r"])
    if case["loss_type"] == "dpo-rw":
        return losses.dpo_rw(ratio, rewards, case["beta_pi"], case["beta_r"])
    # In the original, the second of two equal ones wins; our trainer refuses ties.
    first = (rewards[:, :1] > rewards[:, 1:2]).long()
    ordered = ratio.gather(1, torch.cat([1 - first, first], 1))
    if case["loss_type"] == "exo-pref":
        return losses.exo_pref(ordered, case["beta_pi"])
    return losses.dpo_pref(ordered, case["beta_pi"])


def test_exo_losses_sums_and_gradients(fixtures):
    """Every case of the original but preferences among more than two.

    There its exo-pref keeps the raw labels of rows 2.. as if they were log-probabilities, and its dpo-pref takes
    raw labels for a distribution: no preference loss. Ours are about two; for K completions there are the -rw ones.
    """
    done = {}
    for case in cases(fixtures / "exact-optimization" / "losses.jsonl"):
        if case["loss_type"].endswith("-pref") and case["N"] > 2:
            continue
        runs = ((torch.float64, case["loss"], 1e-9), (torch.float32, case["loss_float32"], 1e-5))
        for dtype, wanted, tolerance in runs:
            policy = torch.tensor(case["model_logits"], dtype=dtype, requires_grad=True)
            sums = exo_sums(policy, case)
            ref = exo_sums(torch.tensor(case["ref_logits"], dtype=dtype), case)
            ratio = (sums - ref).view(case["groups"], case["N"])
            loss = exo_loss(case, ratio).mean()
            close(loss.detach(), wanted, tolerance)
            close(sums.detach(), case["sum_model_logprob"], tolerance)
            close(ref, case["sum_ref_logprob"], tolerance)
            beta = case["beta_pi"] if case["loss_type"].startswith("exo") else 1.0
            close(beta * ratio.detach().flatten(), case["log_ratio_used"], max(tolerance, 1e-9) * 10)
            (gradient,) = torch.autograd.grad(loss, policy)
            close(gradient, case["grad_model_logits"], tolerance)
        done[case["loss_type"]] = done.get(case["loss_type"], 0) + 1
    assert set(done) == {"exo-pref", "exo-rw", "dpo-pref", "dpo-rw"} and min(done.values()) >= 3, done


def test_dpo_pref_with_more_than_two_is_dpo_rw_with_its_labels_as_targets(fixtures):
    """The left out dpo-pref cases, shown to be the cross-entropy to whatever labels are there."""
    found = 0
    for case in cases(fixtures / "exact-optimization" / "losses.jsonl"):
        if case["loss_type"] == "dpo-pref" and case["N"] > 2:
            ratio = (exo_sums(double(case["model_logits"]), case) - exo_sums(double(case["ref_logits"]), case))
            log_p = (case["beta_pi"] * ratio.view(case["groups"], case["N"])).log_softmax(1)
            close(-(double(case["energy_labels"]).view(log_p.shape) * log_p).sum(1).mean(), case["loss"])
            found += 1
    assert found


def test_reward_model_loss(fixtures):
    """Score at class_pos, or (null) before the first padding id; gradient of the head."""
    for case in cases(fixtures / "exact-optimization" / "reward_model_loss.jsonl"):
        head, hidden = double(case["v_head_weight"], requires_grad=True), double(case["hidden_states"])
        places = case["class_pos"] or [row.index(0) - 1 if 0 in row else len(row) - 1 for row in case["input_ids"]]
        scores = (hidden @ head)[torch.arange(len(places)), places].view(2, -1).T  # [pairs, (chosen, rejected)]
        loss = losses.ranking(scores, double([[1.0, 0.0]]).expand_as(scores)).mean()
        close(loss.detach(), case["loss"])
        close(scores[:, 0].detach(), case["chosen_end_scores"])
        close(scores[:, 1].detach(), case["rejected_end_scores"])
        close(torch.autograd.grad(loss, head)[0], case["grad_v_head"])


# -- dpo-rlaif --------------------------------------------------------------------------------------------------


def study_loss(case, policy, ref):
    """[B] from sums [B, 2] (chosen, rejected), by our functions, put together as al-train-exo does.

    Two differences: the original divides the robust form by beta only where eps > 0 (ours always: times beta
    here for eps = 0, which is plain DPO), and ignores importance weights for ipo (al-train-exo refuses these).
    """
    judged = policy if case["reference_free"] else policy - ref
    if case["ipo"]:
        return losses.ipo(judged, case["beta"])
    loss = losses.robust(judged, case["beta"], case["robust_eps"])
    if not case["robust_eps"]:
        loss = loss * case["beta"]
        torch.testing.assert_close(loss, losses.dpo_pref(judged, case["beta"]))
    return loss * losses.importance(policy - ref) if case["importance_correction"] else loss


def test_study_losses(fixtures):
    for case in cases(fixtures / "dpo-rlaif" / "dpo_loss.jsonl"):
        pair = [case["policy_chosen_logps"], case["policy_rejected_logps"]]
        ref = double([case["reference_chosen_logps"], case["reference_rejected_logps"]]).T
        policy = double(pair).T.requires_grad_()
        loss = study_loss(case, policy, ref)
        close(loss.detach(), case["losses"])
        close(loss.mean().detach(), case["mean_loss"])
        close(study_loss(case, policy.float(), ref.float()).detach(), case["losses_float32"], 1e-5)
        gradient = torch.autograd.grad(loss.mean(), policy)[0].T
        close(gradient[0], case["grad_mean_wrt_policy_chosen"])
        close(gradient[1], case["grad_mean_wrt_policy_rejected"])
        rewards = case["beta"] * (policy - ref).detach().T
        close(rewards[0], case["chosen_rewards"])
        close(rewards[1], case["rejected_rewards"])


# -- MORE -------------------------------------------------------------------------------------------------------


def test_ranking_over_all_ordered_pairs(fixtures):
    """The original's mean over ordered pairs; a score below 0 is its padding, which ours never has in a row."""
    for case in cases(fixtures / "MORE" / "ranking_loss.jsonl"):
        logits, total, pairs = double(case["logits"], requires_grad=True), 0.0, 0
        for row, scores in zip(logits, case["scores"], strict=True):
            kept = [i for i, score in enumerate(scores) if score >= 0]
            rewards = double([scores[i] for i in kept])
            total = total + losses.ranking(row[kept], rewards)
            pairs += int((rewards[:, None] > rewards).sum())
        loss = total / max(pairs, 1)
        close(loss.detach(), case["loss"])
        close(torch.autograd.grad(loss, logits)[0], case["grad_logits"])


# -- worked by hand ---------------------------------------------------------------------------------------------


def test_hand_worked_numbers():
    """p = (3/4, 1/4); rewards (log 4, 0) at beta_r 1 make q = (4/5, 1/5)."""
    ratio, rewards = double(HAND), double([[math.log(4.0), 0.0]])
    log = math.log
    kl = 3 / 4 * log((3 / 4) / (4 / 5)) + 1 / 4 * log((1 / 4) / (1 / 5))
    close(losses.exo_rw(ratio, rewards, 1.0, 1.0), [kl])
    close(losses.exo_rw(ratio / 2, rewards / 2, 2.0, 0.5), [kl])  # betas undo the scales
    close(losses.dpo_rw(ratio, rewards, 1.0, 1.0), [-4 / 5 * log(3 / 4) - 1 / 5 * log(1 / 4)])
    close(losses.exo_pref(ratio, 1.0), [3 / 4 * log(3 / 4) + 1 / 4 * (log(1 / 4) + 10)])
    close(losses.exo_pref(ratio, 1.0, 0.1), [3 / 4 * log(3 / 4 / 0.9) + 1 / 4 * log(1 / 4 / 0.1)])
    close(losses.dpo_pref(ratio, 1.0), [log(4 / 3)])  # sigmoid(log 3) = 3/4
    close(losses.dpo_pref(ratio / 2, 2.0, 0.25), [0.75 * log(4 / 3) + 0.25 * log(4)])
    close(losses.ipo(ratio, 0.25), [(log(3) - 2) ** 2])
    close(losses.robust(ratio / 2, 2.0, 0.25), [(0.75 * log(4 / 3) + 0.25 * log(4)) / 2])
    close(losses.simpo(ratio / 2, 2.0, log(3)), [log(2)])  # log 3 ahead, as asked
    close(losses.simpo(ratio, 1.0, 0.0), [log(4 / 3)])
    close(losses.importance(double([[0.0, log(0.3)]])), [0.3])
    # Three completions, two of them equal in reward: the pairs are (0, 1) and (0, 2), gaps log 3 and 0.
    scores = double([[log(3.0), 0.0, log(3.0)]])
    close(losses.ranking(scores, double([[2.0, 1.0, 1.0]])), [log(4 / 3) + log(2)])


def test_closed_forms_where_the_policy_is_the_reference():
    for k in (2, 3, 7):
        nothing, rewards = torch.zeros(1, k, dtype=torch.float64), double([[i / 3 for i in range(k)]])
        log_q = (rewards / 0.5).log_softmax(1)
        close(losses.exo_rw(nothing, rewards, 0.5, 0.5), (-math.log(k) - log_q.mean(1)).tolist())
        close(losses.dpo_rw(nothing, rewards, 0.5, 0.5), [math.log(k)])
    pair = torch.zeros(1, 2, dtype=torch.float64)
    close(losses.dpo_pref(pair, 0.3), [math.log(2)])
    close(losses.dpo_pref(pair, 0.3, 0.2), [math.log(2)])
    close(losses.robust(pair, 0.3, 0.2), [math.log(2) / 0.3])
    close(losses.exo_pref(pair, 0.3), [5 - math.log(2)])
    close(losses.exo_pref(pair, 0.3, 0.1), [-math.log(2) - (math.log(0.9) + math.log(0.1)) / 2])
    close(losses.ipo(pair, 0.25), [4.0])
    close(losses.simpo(pair, 2.0, 0.5), [math.log(1 + math.exp(0.5))])
    close(losses.importance(pair), [1.0])


def test_a_ratio_gains_nothing_beyond_the_clip():
    """The lesser gain counts: A = 2 at ratios .5, 1.1, 1.5 gives -1, -2.2, -2.4; A = -2 there 1.6, 2.2, 3."""
    ratios = double([0.5, 1.1, 1.5])
    close(losses.clipped_ratio(ratios, double([2.0] * 3), 0.2), [-1.0, -2.2, -2.4])
    close(losses.clipped_ratio(ratios, double([-2.0] * 3), 0.2), [1.6, 2.2, 3.0])


def test_a_value_gains_nothing_beyond_the_clip():
    """Old 0, return 1: a value of .5 counts as .2 (the greater loss), one of -.5 as itself."""
    old, returns = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    close(losses.clipped_values(double([0.5, -0.5]), old, returns, 0.2), [0.8 ** 2 / 2, 1.5 ** 2 / 2])


def test_the_estimate_of_a_kl_is_its_mean_and_never_below_0():
    """Over the three tokens of a distribution, each weighted by its probability."""
    ours, theirs = double([0.5, 0.3, 0.2]), double([0.1, 0.3, 0.6])
    each = losses.kl_estimate(ours.log(), theirs.log())
    assert (each >= 0).all() and each[1] == 0
    assert (ours * each).sum().item() == pytest.approx((ours * (ours / theirs).log()).sum().item())


REWARDS = double([[0.4, -1.0, 0.3], [2.0, 0.1, 0.1]])
OF_GROUPS = {
    "exo_rw": lambda x: losses.exo_rw(x, REWARDS, 0.7, 0.3),
    "dpo_rw": lambda x: losses.dpo_rw(x, REWARDS, 0.7, 0.3),
    "ranking": lambda x: losses.ranking(x, REWARDS),
    "exo_pref": lambda x: losses.exo_pref(x[:, :2], 0.7),
    "exo_pref smoothed": lambda x: losses.exo_pref(x[:, :2], 0.7, 0.1),
    "dpo_pref": lambda x: losses.dpo_pref(x[:, :2], 0.7),
    "dpo_pref smoothed": lambda x: losses.dpo_pref(x[:, :2], 0.7, 0.1),
    "ipo": lambda x: losses.ipo(x[:, :2], 0.7),
    "robust": lambda x: losses.robust(x[:, :2], 0.7, 0.1),
    "simpo": lambda x: losses.simpo(x[:, :2], 0.7, 0.4),
    "clipped_ratio": lambda x: losses.clipped_ratio(x.exp(), REWARDS, 0.2),
    "clipped_values": lambda x: losses.clipped_values(x, REWARDS + 0.07, -REWARDS, 0.2),
    "kl_estimate": lambda x: losses.kl_estimate(x, REWARDS),
}


@pytest.mark.parametrize("name", OF_GROUPS)
def test_gradients_are_those_of_finite_differences(name):
    at = double([[0.3, -0.8, 1.1], [-2.0, 0.5, 0.0]], requires_grad=True)
    assert torch.autograd.gradcheck(OF_GROUPS[name], (at,), eps=1e-6, atol=1e-8)


def test_the_better_completion_is_pulled_up_and_the_other_pushed_down():
    """A sign error would pass a test that only sees a loss and a moved weight."""
    for name in ("exo_pref", "dpo_pref", "robust", "ipo", "simpo"):
        at = double([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
        (gradient,) = torch.autograd.grad(OF_GROUPS[name](at).sum(), at)
        assert (gradient[:, 0] < 0).all() and (gradient[:, 1] > 0).all(), name


def test_the_weight_of_a_pair_has_no_gradient():
    ratio = double(HAND, requires_grad=True)
    assert not losses.importance(ratio).requires_grad


# -- ALT ---------------------------------------------------------------------------------------------------------


def alt_tokens(case, name):
    """[N, V], [N]: a case's logits that predict its generated tokens, row by row, and these tokens."""
    start = len(case["prompt_input_ids"][0]) - 1
    seen = torch.tensor(case["generation_attention_mask"]).bool()
    logits = double(case[name])[:, start:start + seen.shape[1]][seen]
    return logits, torch.tensor(case["generation_input_ids"])[seen]


def test_alt_losses_and_gradients(fixtures):
    """Their mean over all tokens of the batch; what our hidden states are, are their logits."""
    found = cases(fixtures / "ALT" / "loss.jsonl")
    assert {bool(case["kl_coef"]) for case in found} == {True, False} == {bool(case["entropy_coef"]) for case in found}
    for case in found:
        (logits, wanted), (told, _) = alt_tokens(case, "policy_logits"), alt_tokens(case, "reference_logits")
        logits.requires_grad_()
        coefficients = {"kl_coef": case["kl_coef"], "entropy_coef": case["entropy_coef"]}
        loss, parts = losses.conditional(itself, logits, wanted, logits.shape[1], reference=(itself, told),
                                         **coefficients)
        assert loss.mean().item() == pytest.approx(case["loss"], rel=1e-9)
        stats = [case["stats"][f"loss/{name}"] for name in ("lm", "kl", "entropy")]
        close(parts.mean(0), stats)
        loss.mean().backward()
        close(logits.grad, alt_tokens(case, "grad_policy_logits")[0].tolist())
        plain, parts = losses.conditional(itself, logits, wanted, logits.shape[1], entropy_coef=case["entropy_coef"])
        assert plain.mean().item() == pytest.approx(case["noKL"]["loss"], rel=1e-9) and not parts[:, 1].any()
        single = losses.conditional(itself, logits.detach().float(), wanted, logits.shape[1],
                                    reference=(itself, told.float()), **coefficients)[0]
        assert single.mean().item() == pytest.approx(case["loss_float32"], rel=1e-5)


def test_adapted_coefficients(fixtures):
    """Of the two controllers the one that raises the coefficient where the KL is over its target."""
    found = json.loads((fixtures / "ALT" / "metrics.json").read_text())["adaptive_controller"]
    case = next(case for case in found if case["lower_bound"])
    coefficient, made = case["init_coef"], []
    for kl in case["currents"]:
        coefficient = losses.adapted(coefficient, kl, case["target"], case["n_steps"], case["horizon"])
        made.append(coefficient)
    assert made == pytest.approx(case["values"], rel=1e-12)
    assert losses.adapted(0.1, 3.0, 3.0, 100) == 0.1


def test_conditional_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL(q || p) = log 2 - log 3 / 2, H(p) = log 4 - 3/4 log 3."""
    hidden, told = double([[math.log(3), 0.0]]), double([[0.0, 0.0]])
    loss, parts = losses.conditional(itself, hidden, torch.tensor([1]), 2, kl_coef=2, entropy_coef=3,
                                     reference=(itself, told))
    nll, kl, entropy = math.log(4), math.log(2) - math.log(3) / 2, math.log(4) - 0.75 * math.log(3)
    close(parts, [[nll, kl, entropy]])
    close(loss, [nll + 2 * kl - 3 * entropy])
    same = losses.conditional(itself, hidden, torch.tensor([0]), 2, kl_coef=1, reference=(itself, hidden))[1]
    assert same[0, 1] == 0


def test_new_tokens_stay_out_of_the_kl_alone():
    """The third token is the policy's own: the reference's row may be longer, too, by padding."""
    hidden, told = double([[math.log(3), 0.0, 5.0]]), double([[0.0, 0.0, 9.0, 9.0]])
    parts = losses.conditional(itself, hidden, torch.tensor([2]), 3, kl_coef=1, reference=(itself, told), known=2)[1]
    likely = hidden[0].log_softmax(0)
    close(parts, [[-likely[2].item(), math.log(2) - math.log(3) / 2, -(likely.exp() * likely).sum().item()]])


@pytest.mark.parametrize("kl_coef, entropy_coef, known", [(0.3, 0.2, None), (0.3, 0.0, 9), (0.0, 0.2, None)])
def test_conditional_is_made_in_chunks_with_the_gradient_of_the_whole(kl_coef, entropy_coef, known, monkeypatch):
    """Neither the policy's nor the reference's head sees more rows at once than a chunk holds, forward or backward."""
    torch.manual_seed(1)
    weight, hidden = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((11, 6), (23, 6)))
    told, other = torch.randn(23, 4, dtype=torch.float64), torch.randn(11, 4, dtype=torch.float64)
    targets, rows = torch.randint(0, 9, (23,)), []

    def seen(part, matrix):
        rows.append(len(part))
        return part @ matrix.T

    monkeypatch.setattr(logps, "CHUNK", 5 * 11)
    reference = (lambda part: seen(part, other), told) if kl_coef else None
    loss, parts = losses.conditional(lambda part: seen(part, weight), hidden, targets, 11, kl_coef=kl_coef,
                                     entropy_coef=entropy_coef, reference=reference, known=known)
    found = torch.autograd.grad((loss * torch.arange(23)).sum(), (hidden, weight))
    assert max(rows) == 5 and sum(rows) == (4 if kl_coef else 2) * 23 and not parts.requires_grad
    likely = (hidden @ weight.T).log_softmax(-1)
    q = (told @ other.T)[:, :known].log_softmax(-1)
    kl = (q.exp() * (q - (hidden @ weight.T)[:, :known].log_softmax(-1))).sum(-1) * bool(kl_coef)
    entropy = -(likely.exp() * likely).sum(-1)
    plain = -likely[torch.arange(23), targets] + kl_coef * kl - entropy_coef * entropy
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(parts[:, 1:], torch.stack([kl, entropy], 1).detach())
    torch.testing.assert_close(found, torch.autograd.grad((plain * torch.arange(23)).sum(), (hidden, weight)))


# -- in no pairs, and by odds ------------------------------------------------------------------------------------


def test_kto_by_hand():
    """beta 1/2, mismatched 1: sigmoid arguments (log 3 - 1) / 2 of the good one, -(log 3 - 1) / 2 of the bad one."""
    ratio, good = double([[math.log(3), math.log(3)]]), double([[1.0, 0.0]])
    value = 1 / (1 + math.exp(-(math.log(3) - 1) / 2))
    close(losses.kto(ratio, good, 0.5, 1.0), [[1 - value, value]])
    close(losses.kto(ratio, good, 0.5, 1.0, 3.0, 0.25), [[3 * (1 - value), value / 4]])
    close(losses.kto(double([[0.0, 0.0]]), good, 0.5, 0.0, 2.0, 1.0), [[1.0, 0.5]])  # policy = reference
    close(losses.kto(double([[1.0, 1.0]]), good, 0.7, 1.0), [[0.5, 0.5]])  # as far as the mismatched
    far = losses.kto(double([[1e4, 1e4]]), good, 1.0, 0.0)
    close(far, [[0.0, 1.0]])


def test_orpo_by_hand():
    """Probabilities a token of 1/2 and 1/4: odds 1 and 1/3, so -log sigmoid(log 3) = log 4/3."""
    means = double([[math.log(0.5), math.log(0.25)]])
    close(losses.orpo(means, 0.1), [math.log(2) + 0.1 * math.log(4 / 3)])
    close(losses.orpo(means.flip(1), 0.1), [math.log(4) + 0.1 * math.log(4)])
    close(losses.orpo(double([[-2.0, -2.0]]), 0.3), [2 + 0.3 * math.log(2)])  # equally likely
    empty = torch.tensor([[0.0, -1.0]], requires_grad=True)  # an empty completion's mean
    loss = losses.orpo(empty, 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), empty)
    assert loss.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("loss", [
    lambda x: losses.kto(x, double([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 0.3, 0.4, 1.5, 0.5),
    lambda x: losses.orpo(x - 3, 0.25),
])
def test_gradients_are_finite_differences(loss):
    values = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(loss, values)


def test_consistency_by_hand():
    """No gradient reaches the best; the values' is twice the difference."""
    values, best = double([1.0, -2.0]).requires_grad_(), double([0.5, 1.0]).requires_grad_()
    loss = losses.consistency(values, best)
    close(loss.detach(), [0.25, 9.0])
    loss.sum().backward()
    close(values.grad, [1.0, -6.0])
    assert best.grad is None
