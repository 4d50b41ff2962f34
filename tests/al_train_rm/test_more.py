"""MORE: weights of domains against the authors' numbers and the solver's optimality; al-train-rm --more."""

import json

import pytest
import torch
from safetensors.torch import load_file

from al_train_rm import more
from al_train_rm.more import Balanced, More
from alignlib.models import load
from alignlib.models.packs import pack
from alignlib.training import losses
from alignlib.training.batches import Batches
from helpers import tiny
from helpers.commands import folders, lines, log, one_line, pairs, read, rewarded, run, stopped, weights

pytestmark = pytest.mark.slow

DOMAINS = ("harmless", "helpful", "polite")


def cases(fixtures, name):
    return [json.loads(line) for line in (fixtures / "MORE" / f"{name}.jsonl").read_text().splitlines()]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


# -- the authors' numbers --------------------------------------------------------------------------------------


def padded(case):
    """Their logits and scores; a negative score is padding, which here makes no pair as equal rewards do not."""
    logits, scores = double(case["logits"]).requires_grad_(), double(case["scores"])
    return logits, scores, scores >= 0


def row_sums(logits, scores, there):
    """[B]: our loss of each row, over its completions that are there."""
    return torch.stack([losses.ranking(row[seen][None], wanted[seen][None])[0]
                        for row, wanted, seen in zip(logits, scores, there, strict=True)])


def count(scores, there):
    return sum((row[seen][:, None] > row[seen][None]).sum() for row, seen in zip(scores, there, strict=True))


def test_ranking_losses_and_gradients(fixtures):
    found = cases(fixtures, "ranking_loss")
    assert any(case["loss"] for case in found)
    for case in found:
        logits, scores, there = padded(case)
        loss = row_sums(logits, scores, there).sum() / max(count(scores, there), 1)
        assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
        loss.backward()
        torch.testing.assert_close(logits.grad, double(case["grad_logits"]), rtol=1e-9, atol=1e-9)


def test_weighted_losses_and_gradients(fixtures):
    for case in cases(fixtures, "more_ranking_loss"):
        logits, scores, there = padded(case)
        tasks = len(case["weights"]) if case["resampling"] else len(set(case["task_mask"]))
        loss = tasks * (double(case["weights"]) * row_sums(logits, scores, there)).sum() / max(count(scores, there), 1)
        assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
        loss.backward()
        torch.testing.assert_close(logits.grad, double(case["grad_logits"]), rtol=1e-9, atol=1e-9)


def test_normalised_gradients(fixtures):
    found = cases(fixtures, "gradient_normalizer")
    assert {case["type"] for case in found} == set(more.NORMALIZERS)
    for case in found:
        made = more.normalised(double(case["grads"]), double(case["losses"]), case["type"])
        torch.testing.assert_close(made, double(case["normalized"]), rtol=1e-9, atol=1e-9)


def gap(vectors, weight):
    """How far from optimal, in squared lengths of the longest: v = V'lambda is shortest iff all <v, v_t> >= |v|^2."""
    point = weight @ vectors
    return max(0.0, (point @ point - (vectors @ point).min()).item()) / max((vectors**2).sum(1).max().item(), 1e-300)


def test_the_shortest_combination(fixtures):
    """Optimal to 1e-12; theirs is within what their README measures of it (Frank-Wolfe, cut off at the vertices)."""
    for case in cases(fixtures, "min_norm_fw"):
        vectors = double(case["vectors"])
        made = more.min_norm(vectors)
        assert made.sum().item() == pytest.approx(1) and (made >= 0).all() and gap(vectors, made) < 1e-12
        mean = (vectors**2).sum(1).mean().item()
        found = ((made @ vectors) ** 2).sum().item()
        assert found <= case["norm2_of_combination"] + 1e-12 * mean
        assert found == pytest.approx(case["norm2_of_combination"], abs=1e-3 * mean)
        if not case["note"]:
            assert made.tolist() == pytest.approx(case["lambda"], abs=2e-3)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_solver_at_any_scale(scale):
    torch.manual_seed(0)
    for domains in (2, 5, 9):
        for _ in range(20):
            vectors = torch.randn(domains, 7, dtype=torch.float64) + 0.5
            vectors[0] *= 30
            made = more.min_norm(vectors * scale)
            assert gap(vectors, made) < 1e-12 and made.sum().item() == pytest.approx(1)
    assert more.min_norm(torch.zeros(4, 3)).tolist() == [0.25] * 4
    assert more.min_norm(torch.tensor([[1e30, 0.0], [0.0, 1e30]])).tolist() == pytest.approx([0.5, 0.5])  # float32
    assert more.min_norm(torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])).isnan().all()
    assert more.min_norm(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == [1, 0]  # nothing is shorter
    assert more.min_norm(double([[1.0, 0.0], [0.0, 2.0]])).tolist() == pytest.approx([0.8, 0.2])  # by hand


def steps_of(case):
    """Each step's gradients and losses by domain, by our functions, and the domains that are there."""
    for step in case["steps"]:
        embeddings, scores = torch.tensor(step["embeddings"]), torch.tensor(step["scores"])
        logits = (embeddings @ torch.tensor(step["head_weight"])[0]).requires_grad_()
        task = torch.tensor(step.get("task_mask", range(len(scores))))
        loss = losses.ranking(logits, scores)
        by_score, = torch.autograd.grad(loss.sum(), logits)
        gradients = more.head_gradients(by_score.flatten(), embeddings.flatten(0, 1),
                                        task.repeat_interleave(scores.shape[1]), case["task_num"])
        zeros = torch.zeros(case["task_num"])
        there = torch.isin(torch.arange(len(zeros)), task)
        # Theirs counts a domain without any pair too; ours leaves such records out as they are read.
        number = zeros.index_add(0, task, (scores[:, :, None] > scores[:, None]).sum((1, 2)).float()).clamp(min=1)
        yield (step, there, gradients[there] / number[there, None],
               zeros.index_add(0, task, loss.detach())[there] / number[there])


@pytest.mark.parametrize("name", ["compute_lambda", "compute_lambda_noresampling"])
def test_three_steps_with_momentum(name, fixtures):
    """Momentum begins with what theirs began with; ours begins with zeros."""
    for case in cases(fixtures, name):
        momentum = torch.tensor(case["init_grad_m"])
        for step, there, gradients, means in steps_of(case):
            momentum[there] = (1 - case["alpha"]) * momentum[there] + case["alpha"] * gradients
            wanted = torch.tensor(step["grad_m_after"])
            torch.testing.assert_close(momentum, wanted, rtol=1e-5, atol=1e-5)
            if "rm_losses" in step:
                assert means.tolist() == pytest.approx(step["rm_losses"], abs=1e-5)
            made = more.min_norm(more.normalised(momentum[there], means, case["normalize"]))
            assert made.tolist() == pytest.approx(step["lambda_"], abs=2e-3)


# -- by hand -----------------------------------------------------------------------------------------------------


def test_margins_and_soft_labels_by_hand():
    scores, rewards = double([[2.0, 1.0]]), double([[3.0, 1.0]])
    log_sigmoid = torch.nn.functional.logsigmoid
    assert losses.ranking(scores, rewards).item() == pytest.approx(-log_sigmoid(double(1.0)).item())
    assert losses.ranking(scores, rewards, margin=0.25).item() == pytest.approx(-log_sigmoid(double(0.5)).item())
    likely = double(0.5 * 2).sigmoid()
    soft = -likely * log_sigmoid(double(1.0)) - (1 - likely) * log_sigmoid(double(-1.0))
    assert losses.ranking(scores, rewards, soft=0.5).item() == pytest.approx(soft.item())
    assert losses.ranking(scores, double([[1.0, 1.0]]), soft=0.5).item() == 0


def test_the_gradient_by_the_head_is_autograds():
    """Of a domain's mean loss, by the head's weight alone: no pass through the model is needed for it."""
    torch.manual_seed(0)
    embeddings, head = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64).requires_grad_()
    rewards, domain = torch.randn(4, 3), torch.tensor([1, 0, 1, 1])
    loss = losses.ranking(embeddings @ head, rewards)
    free = (embeddings @ head).detach().requires_grad_()
    by_score, = torch.autograd.grad(losses.ranking(free, rewards).sum(), free)
    made = more.head_gradients(by_score.flatten(), embeddings.flatten(0, 1), domain.repeat_interleave(3), 2)
    for number in (0, 1):
        wanted, = torch.autograd.grad(loss[domain == number].sum(), head, retain_graph=True)
        torch.testing.assert_close(made[number], wanted)


def test_a_balanced_order_holds_as_many_of_each():
    order = Balanced((tuple(range(10)), (10, 11, 12), (13,) * 1), 7)
    recipe = tiny.recipe("x", batch_size=6)
    batches = Batches(order, recipe)
    assert len(order) == 21 and batches.an_epoch == 4
    epoch = [batches.at(step) for step in range(4)]
    assert [len(batch) for batch in epoch] == [6, 6, 6, 3]
    for batch in epoch:
        assert len({sum(i in group for i in batch) for group in order.groups}) == 1
    drawn = [i for batch in epoch for i in batch]
    assert len(set(drawn) & set(range(10))) == 7  # without replacement where there are enough
    assert sorted(drawn.count(i) for i in (10, 11, 12)) == [2, 2, 3] and drawn.count(13) == 7
    assert batches.at(4) != epoch[0] and batches.at(4) == Batches(order, recipe).at(4)


# -- the command -------------------------------------------------------------------------------------------------


def mixed(number=8, k=2):
    """Preferences of three domains, which reward different things."""
    return [{**record, "domain": DOMAINS[i % 3], "rewards": record["rewards"] if i % 3 else record["rewards"][::-1]}
            for i, record in enumerate(rewarded(number, k))]


def train(records, *args, model=None, out=None):
    out = out or folders().new("more")
    done = run("al-train-rm", model or folders().policy, "-o", out, "--batch-size", 6, "--lr", "1e-3", "--dtype",
               "fp32", *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, log(out)


def refused(records, *args, code=65):
    out = folders().new("more")
    done = run("al-train-rm", folders().policy, "-o", out, *args, stdin=lines(*records))
    assert (done.returncode, done.stdout) == (code, "") and not out.exists()
    return one_line(done.stderr)


def test_equal_weights_are_plain_training():
    """MultiTask: T times 1/T of the domains' sums is the sum of all, however it is packed."""
    (plain, _), (equal, entries) = train(mixed(12)), train(mixed(12), "--more", "--no-reweight", "--pack-tokens", 90)
    assert all(entry[f"lambda_{name}"] == pytest.approx(1 / 3) for entry in entries for name in DOMAINS)
    one, other = (load_file(folder / "model.safetensors") for folder in (plain, equal))
    assert max((one[name] - other[name]).abs().max().item() for name in one) < 2e-5


@pytest.mark.parametrize("normalize", more.NORMALIZERS)
def test_the_weights_of_a_step_are_what_the_formula_says(normalize):
    """Of the first step, from the model's own hidden states: gradient of each domain's mean loss by the head."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    records = mixed(6, 3)
    _, (entry,) = train(records, "--more", "--normalize", normalize, "--steps", 1, model=folders().reward)
    model, words = (auto.from_pretrained(folders().reward)
                    for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    head, by_domain = model.score.weight.detach()[0].requires_grad_(), {name: [] for name in DOMAINS}
    for record in records:
        texts = [words(record["prompt"])["input_ids"] + words(text, add_special_tokens=False)["input_ids"]
                 for text in record["completions"]]
        with torch.no_grad():
            read = torch.stack([model.model(torch.tensor([text])).last_hidden_state[0, -1] for text in texts])
        loss = losses.ranking((read @ head)[None], torch.tensor([record["rewards"]]))[0] / 3
        by_domain[record["domain"]].append(loss)
    means = [torch.stack(by_domain[name]).mean() for name in DOMAINS]
    gradients = torch.stack([torch.autograd.grad(mean, head, retain_graph=True)[0] for mean in means])
    wanted = more.min_norm(more.normalised(0.99 * gradients, torch.stack(means).detach(), normalize))
    assert [entry[f"lambda_{name}"] for name in DOMAINS] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert [entry[f"loss_{name}"] for name in DOMAINS] == pytest.approx([mean.item() for mean in means], rel=1e-4)


@pytest.mark.long
def test_the_split_into_packs_changes_nothing_and_a_stopped_run_goes_on(tmp_path):
    """The momentum is in the checkpoint."""
    (tmp_path / "eval").write_bytes(lines(*mixed(6)))
    args = ("--more", "--resample", 4, "--epochs", 40, "--alpha", 0.4, "--eval", tmp_path / "eval", "--eval-every", 5)
    whole, entries = train(mixed(9, 3), *args)
    assert {f"eval_accuracy_{name}" for name in DOMAINS} < {name for entry in entries for name in entry}
    last = next(entry for entry in reversed(entries) if "eval_accuracy" in entry)
    for what in ("loss", "accuracy"):  # domains of one size
        assert sum(last[f"eval_{what}_{name}"] for name in DOMAINS) / 3 == pytest.approx(last[f"eval_{what}"])
        assert sum(last[f"{what}_{name}"] for name in DOMAINS) / 3 == pytest.approx(last[what])
    out = folders().new("more")
    code, _, _ = stopped("al-train-rm", folders().policy, "-o", out, "--batch-size", 6, "--lr", "1e-3", "--dtype",
                         "fp32", *args, stdin=lines(*mixed(9, 3)))
    assert code == 143
    train(mixed(9, 3), *args, "--resume", out=out)
    assert weights(out) == weights(whole) and log(out) == entries
    split = train(mixed(9, 3), "--more", "--steps", 3, "--pack-tokens", 60)[1]
    together = train(mixed(9, 3), "--more", "--steps", 3)[1]
    for one, other in zip(split, together, strict=True):
        assert one["lambda_polite"] == pytest.approx(other["lambda_polite"], abs=1e-3)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_step_of_one_domain_has_all_the_weight():
    """A random batch of one record: its domain is the only one at hand."""
    _, entries = train(mixed(6), "--more", "--batch-size", 1, "--steps", 4)
    for entry in entries:
        (name,) = [name for name in DOMAINS if f"lambda_{name}" in entry]
        assert entry[f"lambda_{name}"] == 1


def test_a_domain_without_a_gradient_makes_no_nan(tmp_path):
    """Its two completions have one text: the score's gap is 0, and so is the gradient by the head."""
    records = [{**record, "completions": ["x", "x"]} if record["domain"] == "polite" else record for record in mixed(9)]
    for normalize in more.NORMALIZERS:
        _, entries = train(records, "--more", "--normalize", normalize, "--steps", 3, "--batch-size", 9)
        for entry in entries:  # but for rounding, which a norm blows up to a direction
            found = [entry[f"lambda_{name}"] for name in DOMAINS]
            assert sum(found) == pytest.approx(1) and (entry["lambda_polite"] > 0.99 or normalize in ("l2", "loss+"))
            assert entry["loss_polite"] == pytest.approx(0.6931, abs=1e-4) and entry["grad_norm"] > 0


def test_a_run_that_goes_wrong_says_where():
    out = folders().new("more")
    done = run("al-train-rm", folders().policy, "-o", out, "--more", "--lr", 1e30, "--clip", 0, "--dtype", "fp32",
               "--batch-size", 3, stdin=lines(*mixed(9)))
    assert done.returncode == 1 and "the loss is nan at step 2" in one_line(done.stderr)


def test_what_domains_have_to_be(tmp_path):
    good = mixed(9)
    assert "<stdin>:10: domain: missing" in refused([*good, *pairs(1)], "--more")
    assert "one domain only, 'helpful'" in refused([{**record, "domain": "helpful"} for record in good], "--more")
    (tmp_path / "other").write_bytes(lines(*good))
    assert "one domain only, 'helpful'" in refused([{**record, "domain": "helpful"} for record in good], "--more",
                                                   "--eval", tmp_path / "other")
    assert "domain 'new': one record only" in refused([*good, {**good[0], "domain": "new"}], "--more")
    (tmp_path / "eval").write_bytes(lines({**good[0], "domain": "new"}))
    assert "domain 'new': one record only" in refused([*good, {**good[0], "domain": "new"}], "--more", "--eval",
                                                      tmp_path / "eval")
    tied = [{**record, "rewards": [1, 1], "domain": "new"} for record in good[:3]]
    assert "domain 'new': no record with two different scores" in refused([*good, *tied], "--more")
    long = [{**record, "prompt": 500 * record["prompt"], "domain": "new"} for record in good[:3]]
    assert "domain 'new': no record with two different scores is left" in refused([*good, *long], "--more", "--on-long",
                                                                                  "skip")
    mixture = [*good, {**good[0], "domain": "new"}, *tied]
    assert "domain 'new': one record only with two different scores" in refused(mixture, "--more")
    assert "not the same number of each of 3 domains" in refused(good, "--more", "--resample", 4, "--batch-size", 8,
                                                                 code=2)
    assert "no records to train on" in refused(tied, "--more")


def test_a_domain_that_is_only_evaluated_is_named(tmp_path):
    """Its records to train on may all be ties, which are left out."""
    good = mixed(9)
    tied = [{**record, "rewards": [1, 1]} if record["domain"] == "polite" else record for record in good]
    (tmp_path / "eval").write_bytes(lines(*good))
    done = run("al-train-rm", folders().policy, "-o", folders().new(), "--more", "--steps", 1, "--eval",
               tmp_path / "eval", stdin=lines(*tied))
    assert done.returncode == 0 and "warning: domain 'polite': evaluated, but nothing to train on\n" in done.stderr
    assert "eval_loss_polite" in done.stdout and "lambda_polite" not in done.stdout


@pytest.mark.parametrize("args, said", [
    (("--resample", 4), "--resample goes with --more"),
    (("--alpha", 0.5), "--alpha goes with --more"),
    (("--more", "--no-reweight", "--alpha", 0.5), "do nothing with --no-reweight"),
    (("--margin", 1, "--soft", 1), "--margin or --soft"),
    (("--loss", "classify", "--more"), "--more does nothing for --loss classify"),
])
def test_options_that_do_nothing_are_refused(args, said):
    assert said in refused(mixed(6), *args, code=2)


# -- pooling, the language-modelling term ------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_pooled_score_is_of_the_whole_text(pool):
    """In shared rows as in plain ones; al-score reads it so, plain classification does not, and the card says so."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    records = rewarded(4, 3)
    out, _ = train(records, "--pool", pool, "--steps", 2, model=folders().reward)
    model, words = (auto.from_pretrained(out) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    assert model.config.reward_pool == pool and pool in (out / "README.md").read_text()
    scored = read(run("al-score", out, "--dtype", "fp32", stdin=lines(*records)).stdout)
    for record, found in zip(records, scored, strict=True):
        for text, score in zip(record["completions"], found["rewards"], strict=True):
            ids = words(record["prompt"])["input_ids"] + words(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
                pooled = hidden.mean(0) if pool == "mean" else hidden.amax(0)
                assert score == pytest.approx((model.score.weight[0] @ pooled).item(), rel=1e-3, abs=1e-4)
    again, _ = train(records, "--steps", 1, model=out)  # it stays as it was
    assert json.loads((again / "config.json").read_text())["reward_pool"] == pool


def test_pooling_knows_its_rows_however_they_lie():
    """Of places' own numbers: rows with a shared prompt, one a completion, all in one row."""
    model = load.RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    examples = [tiny.example(6, 3, 5, seed=1), tiny.example(2, 4, 0, seed=2)]
    texts = [example.prompt + part for example in examples for part in example.completions]
    for pool, by in (("mean", lambda text: sum(text) / len(text)), ("max", max), ("last", lambda text: text[-1])):
        model.core.config.reward_pool = pool
        for how in ({}, {"shared": False}, {"flat": True}):
            batch = pack(examples, **how)
            read = model.pooled(batch.ids.flatten()[:, None].double(), batch)
            assert read[:, 0].tolist() == pytest.approx([by(text) for text in texts])


def test_an_encoder_reads_in_its_own_way(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    encoder = BertForSequenceClassification(BertConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=1, pad_token_id=tiny.VOCABULARY - 1))
    tiny.save(encoder, tmp_path / "encoder")
    for args in (("--more",), ("--pool", "last"), ("--lm-coef", 1)):
        done = run("al-train-rm", tmp_path / "encoder", "-o", folders().new(), *args, stdin=lines(*mixed(6)))
        assert done.returncode == 2 and "BertForSequenceClassification reads its text in its own" in done.stderr


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_modelling_term(tied, tmp_path):
    """The mean over the best completion's tokens, by the policy's own head."""
    policy = tiny.save(tiny.causal("llama", tie_word_embeddings=tied), tmp_path / "policy")
    records = [{**record, "finish_reasons": ["stop"] * 3} for record in rewarded(4, 3)]
    for record in records:
        record["prompt"] = record["prompt"][-40:]
    args = ("--steps", 1, "--max-length", 250, "--rm-eos")
    plain, with_term = (train(records, *args, *extra, model=policy)[1][0] for extra in ((), ("--lm-coef", 0.5)))
    best = [{**record, "completions": [record["completions"][record["rewards"].index(max(record["rewards"]))]],
             "rewards": [0], "finish_reasons": ["stop"]} for record in records]
    scored = read(run("al-score", policy, "--perplexity", "--dtype", "fp32", stdin=lines(*best)).stdout)
    wanted = sum(torch.tensor(record["perplexities"][0]).log().item() for record in scored) / len(records)
    assert with_term["loss"] - plain["loss"] == pytest.approx(0.5 * wanted, rel=1e-4)


def test_the_term_is_not_weighed_by_domain():
    """A domain whose gradient says nothing still learns to speak."""
    reward = load.RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    words = tiny.causal("llama").get_output_embeddings()
    examples = [tiny.example(9, 5, 7, 4, seed=i, rewards=[2.0, 1.0, 0.0], domain=[i % 2] * 3) for i in range(4)]
    batch = reward.pack(examples)
    found = []
    for coefficient in (0.0, 0.5):
        objective = More(names=["a", "b"], normalize="none", lm_coef=coefficient, output_head=words)
        loss, figures = objective(reward, batch)
        found.append((loss.item(), objective.step_loss([True]).item()))
        assert ("lm_loss" in figures) == (coefficient > 0)
    (plain, weighed), (total, both) = found
    added = 0.5 * 3 * figures["lm_loss"].item()  # three pairs a record
    assert abs(weighed - plain) > 0.1 and added > 1
    assert (total - plain, both - weighed) == pytest.approx((added, added), rel=1e-5)


def test_the_term_falls_when_it_is_trained_on():
    _, entries = train(rewarded(6, 3), "--lm-coef", 1, "--epochs", 20, "--schedule", "constant")
    assert entries[-1]["loss"] < 0.8 * entries[0]["loss"]
    out = folders().new("more")
    done = run("al-train-rm", folders().reward, "-o", out, "--lm-coef", 1, stdin=lines(*rewarded(2, 3)))
    assert done.returncode == 2 and "needs a policy's output head" in one_line(done.stderr)
