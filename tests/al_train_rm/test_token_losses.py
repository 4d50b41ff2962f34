"""Losses of reward models of next tokens: worked by hand, gradients against differences, and what training does."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from al_train_rm.token_losses import NextToken, Values
from alignlib.models.token_rewards import NextTokenReward, VocabularyReward
from alignlib.training import losses
from helpers import tiny
from helpers.commands import folders, lines, log, one_line, pairs, read, run, stopped, weights

EXAMPLES = [tiny.example(6, 9, 4, seed=1, rewards=[1.0, 0.0]), tiny.example(3, 2, 7, seed=2, rewards=[0.0, 1.0]),
            tiny.example(4, 1, 5, seed=3, rewards=[1.0, 0.0])]
STEP = 1e-5


def policy() -> NextTokenReward:
    """Of a family that computes nothing in float32."""
    return NextTokenReward(tiny.causal("gpt2").double(), tiny.tokenizer())


def values() -> VocabularyReward:
    return VocabularyReward(tiny.causal("gpt2").double(), tiny.tokenizer(), train=True)


def test_the_next_token_loss_by_hand():
    model, objective = policy(), NextToken(beta=0.3)
    with torch.no_grad():
        scores = model.scores(model.pack(EXAMPLES))
        loss, figures = objective(model, model.pack(EXAMPLES))
    gaps = [scores[i, best] - scores[i, 1 - best] for i, best in enumerate((0, 1, 0))]
    assert loss.item() == pytest.approx(sum(math.log1p(math.exp(-0.3 * gap)) for gap in gaps), rel=1e-6)
    assert figures["accuracy"].item() == sum(gap > 0 for gap in gaps)
    assert figures["best_score"].item() == pytest.approx(sum(scores[i, b].item() for i, b in enumerate((0, 1, 0))))
    assert objective.size(EXAMPLES[0]) == 1


def consistency(model: VocabularyReward, prompt: list[int], row: list[int]) -> float:
    """By its definition: each token's value before the last, and the best after it, by a whole pass each."""
    apart = []
    for i, token in enumerate(row[:-1]):
        before, after = (model.core(input_ids=torch.tensor([prompt + row[:end]])).logits[0, -1] for end in (i, i + 1))
        apart.append((before[token] - after.max()).item() ** 2)
    return sum(apart) / max(len(apart), 1)


def test_the_vocabulary_losses_take_turns_and_are_the_definition():
    """An even step ranks, an odd one is of the better texts' consistency; an evaluation ranks and tells both."""
    model, objective = values(), Values(margin=0.2)
    batch, better = model.pack(EXAMPLES), (0, 1, 0)
    with torch.no_grad():
        scores = model.scores(batch)
        apart = [consistency(model, one.prompt, one.completions[best])
                 for one, best in zip(EXAMPLES, better, strict=True)]
    ranking = losses.ranking(scores, batch.values["rewards"], 0.2).sum().item()
    assert apart[2] == 0 < apart[1]  # of one token nothing comes after it
    for step, wanted, told in ((0, ranking, False), (1, sum(apart), True), (2, ranking, False)):
        objective.before(step, [], [], None)
        loss, figures = objective(model, batch)
        assert loss.item() == pytest.approx(wanted, rel=1e-6) and ("consistency" in figures) == told
        assert loss.requires_grad and not any(figure.requires_grad for figure in figures.values())
    objective.before(None, [], [], None)
    with torch.no_grad():
        loss, figures = objective(model, batch)
    assert loss.item() == pytest.approx(ranking, rel=1e-6)
    assert figures["consistency"].item() == pytest.approx(sum(apart), rel=1e-6)


def differs(model, loss_of) -> None:
    """Some weights' gradients against the differences that small steps make."""
    loss_of().backward()
    checked = 0
    for number, (name, weight) in enumerate(model.core.named_parameters()):
        place = (number * 7919) % weight.numel()
        flat = weight.data.view(-1)
        if name == "transformer.wte.weight":  # of a token that is there
            place = EXAMPLES[0].prompt[2] * weight.shape[1] + 3
        kept, sides = flat[place].item(), []
        for sign in (1, -1):
            flat[place] = kept + sign * STEP
            with torch.no_grad():
                sides.append(loss_of().item())
        flat[place] = kept
        found = weight.grad.view(-1)[place].item()
        assert found == pytest.approx((sides[0] - sides[1]) / (2 * STEP), rel=1e-4, abs=1e-7), name
        checked += abs(found) > 1e-6
    assert checked > 10


@pytest.mark.slow
def test_the_next_token_loss_has_its_gradient():
    model, objective = policy(), NextToken(beta=0.3)
    differs(model, lambda: objective(model, model.pack(EXAMPLES))[0])


@pytest.mark.parametrize("turn", ["ranking", "consistency"])
@pytest.mark.slow
def test_the_vocabulary_losses_have_their_gradients(turn, monkeypatch):
    """No gradient goes through the best after a token: it stays what it was while the weights move."""
    model, objective, plain, kept = values(), Values(turn=turn), losses.consistency, []

    def frozen(mine: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        kept.append(best)
        return plain(mine, kept[0])

    monkeypatch.setattr(losses, "consistency", frozen)
    differs(model, lambda: objective(model, model.pack(EXAMPLES))[0])


# -- al-train-rm --------------------------------------------------------------------------------------------------


def sided(count: int, start: int = 0) -> list[dict]:
    """Preferences that anyone can learn: thanks are good and nothing else is."""
    return [{**pair, "chosen": pair["chosen"] + " Thank you.", "rejected": pair["rejected"] + " No."}
            for pair in pairs(start + count)[start:]]


def train(records, *more, model=None, out=None):
    out = out or folders().new("rm")
    done = run("al-train-rm", model or folders().policy, "-o", out, "--batch-size", 8, *more, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, log(out)


KINDS = {"next-token": ("--loss", "next-token", "--beta", 0.2), "vocabulary": ("--head", "vocabulary")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_what_it_learns_al_score_and_al_eval_read(kind, tmp_path):
    """Held-out pairs are told apart, as the trainer says; a temperature is fitted, and the judge's verdicts follow."""
    (tmp_path / "eval").write_bytes(lines(*sided(16, 40)))
    how = (*KINDS[kind], "--lr", "1e-2", "--epochs", 6, "--eval", tmp_path / "eval")
    made, entries = train(sided(40), *how)
    assert json.loads((made / "config.json").read_text())["reward_kind"] == kind
    assert (made / "README.md").exists() == (kind == "vocabulary")
    final = json.loads((made / "run.json").read_text())["final"]
    assert final["best_accuracy"] >= 0.8
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in sided(16, 40)]
    scored = run("al-score", made, stdin=lines(*both))
    assert scored.returncode == 0, scored.stderr
    found = run("al-eval", "rm", "--fit-temperature", made, "--json", stdin=scored.stdout)
    assert found.returncode == 0 or "no temperature fits" in found.stderr, found.stderr
    judged = run("al-eval", "rm", "--json", stdin=scored.stdout)
    assert json.loads(judged.stdout)["accuracy"]["mean"] == pytest.approx(final["best_accuracy"])
    verdicts = run("al-label-ai", "--judge-rm", made, stdin=lines(*both))
    assert verdicts.returncode == 0, verdicts.stderr
    right = [record["winner"] == 0 for record in read(verdicts.stdout)]
    assert sum(right) / len(right) == pytest.approx(final["best_accuracy"])
    if kind == "next-token":
        plain = run("al-score", made, "--logps", stdin=lines(*both))
        assert [r["logps"] for r in read(plain.stdout)] == [r["rewards"] for r in read(scored.stdout)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_training_goes_on_in_such_a_model_and_adapters_are_saved(kind):
    """As a whole folder and as an adapter, of which both give the same rewards."""
    how = (*KINDS[kind], "--lora", 4, "--lr", "1e-2", "--steps", 4)
    (whole, entries), (alone, same) = (train(sided(8), *how, *more) for more in ((), ("--save-adapter",)))
    assert entries == same and not (alone / "config.json").exists()
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in sided(4)]
    rewards = []
    for folder in (whole, alone):
        done = run("al-score", folder, "--dtype", "fp32", stdin=lines(*both))
        assert done.returncode == 0, done.stderr
        rewards += [[value for record in read(done.stdout) for value in record["rewards"]]]
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-3)
    again, more = train(sided(8), *KINDS[kind], "--lr", 0, "--steps", 2, model=whole)
    assert weights(again) == weights(whole)
    assert more[0]["best_score"] != pytest.approx(more[0]["worst_score"])


@pytest.mark.parametrize("lora", [(), ("--lora", 4)])
@pytest.mark.slow
def test_the_plan_counts_the_new_head(lora):
    """Untied from the embeddings, it trains beside adapters too."""
    made, _ = train(sided(8), *KINDS["vocabulary"], *lora, "--steps", 1, *(["--save-adapter"] if lora else []))
    done = run("al-train-rm", folders().policy, *KINDS["vocabulary"], *lora, "--plan")
    assert done.returncode == 0, done.stderr
    saved = load_file(made / ("adapter_model.safetensors" if lora else "model.safetensors"))
    assert json.loads(done.stdout)["trained"] == sum(weight.numel() for weight in saved.values())


@pytest.mark.slow
def test_what_goes_on_from_a_next_token_reward_model_is_what_is_trained():
    """A policy, whole or as an adapter, and a classifier, whatever its base was."""
    base, _ = train(sided(4), *KINDS["next-token"], "--steps", 1)
    out = folders().new("policy")
    done = run("al-sft", base, "-o", out, "--lora", 2, "--save-adapter", "--steps", 1, stdin=lines(*sided(4)))
    assert done.returncode == 0, done.stderr
    done = run("al-score", out, stdin=lines({"prompt": "p", "completions": ["a"]}))
    assert done.returncode == 2 and "a policy or a bare model" in one_line(done.stderr)
    whole, _ = train(sided(4), "--steps", 1, model=base)
    assert "reward_kind" not in json.loads((whole / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
@pytest.mark.slow
def test_a_stopped_run_goes_on(kind):
    """Where the losses take turns, in the same turn."""
    how = (*KINDS[kind], "--batch-size", 4, "--epochs", 40, "--lr", "1e-3")
    whole, entries = train(pairs(8), *how)
    out = folders().new("rm")
    code, _, _ = stopped("al-train-rm", folders().policy, "-o", out, *how, stdin=lines(*pairs(8)))
    assert code == 143
    made, same = train(pairs(8), *how, "--resume", out=out)
    assert weights(made) == weights(whole) and same == entries


@pytest.mark.parametrize("args, said", [
    (("--loss", "next-token", "--pool", "mean"), "--pool does nothing for --loss next-token"),
    (("--loss", "next-token", "--rm-eos"), "--rm-eos does nothing for --loss next-token"),
    (("--loss", "next-token", "--more"), "--more does nothing for --loss next-token"),
    (("--head", "vocabulary", "--lm-coef", 1), "--lm-coef does nothing for --head vocabulary"),
    (("--head", "vocabulary", "--beta", 1), "--beta does nothing for --head vocabulary"),
    (("--beta", 1), "--beta does nothing for --loss pairwise"),
    (("--head", "vocabulary", "--loss", "next-token"), "--head vocabulary goes with --loss pairwise, not next-token"),
])
def test_options_that_do_nothing_are_refused(args, said):
    done = run("al-train-rm", folders().policy, "-o", folders().new(), *args, stdin=lines(*pairs(4)))
    assert done.returncode == 2 and said in one_line(done.stderr)


def test_a_model_of_another_kind_is_refused():
    vocabulary = folders().saying(folders().policy, reward_kind="vocabulary")
    for args, path, said in ((("--loss", "next-token"), vocabulary, "a reward model (of the values of next tokens)"),
                             (("--loss", "next-token"), folders().reward, "a reward model (sequence classifier)"),
                             (("--head", "vocabulary"), folders().reward, "a reward model (sequence classifier)")):
        done = run("al-train-rm", path, "-o", folders().new(), *args, stdin=lines(*pairs(4)))
        assert done.returncode == 2 and f"{path}: {said}" in one_line(done.stderr)
