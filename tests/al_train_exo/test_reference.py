"""A policy is its own reference at step 0: every loss begins at its closed form."""

import math

import click
import pytest
import torch

from al_train_exo.reference import add_ref_logps, read_ref_logps
from alignlib.models import load
from alignlib.training import loop
from alignlib.training.batches import Batches, Shuffled, packs_of
from alignlib.training.run_folder import Run
from helpers import bomb, tiny


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_policy_that_is_its_own_reference_starts_at_log_2(family, tmp_path):
    """Loaded as al-train-exo loads it, in training mode, dropout in its configuration; any batch, any split of it."""
    changes = {"attention_dropout": 0.3} if family == "llama" else {}  # GPT-2's is 0.1 by default
    folder = tiny.save(tiny.causal(family, **changes), tmp_path / "policy")
    policy = load.load_policy(folder, "cpu", "fp32", train=True)
    policy.model.train()
    for records in range(1, 8):
        for pack_tokens in (1, 90, 4096):
            run = Run(tiny.recipe(tmp_path / f"{records}-{pack_tokens}", batch_size=3, pack_tokens=pack_tokens), {})
            recipe = run.recipe
            examples = tiny.stored(tiny.example(3 + 7 * i, 5 + i, 12 - i, rewards=[i % 2 + 0.0, 0.5])
                                   for i in range(records))
            run.reads(0)
            objective = tiny.contrast()
            add_ref_logps(policy, examples, recipe, run, policy.logps)
            batches = Batches(Shuffled(records), recipe)
            for step in range(batches.an_epoch):
                indices, total = batches.at(step), 0.0
                for batch, *_ in packs_of(indices, policy, examples, recipe):
                    total += objective(policy, batch)[0].item()
                size = sum(objective.size(examples[i]) for i in indices)
                assert abs(total / size - math.log(2)) < 1e-6


def test_step_0_of_every_loss_through_the_training_loop(tmp_path):
    """fit's first logged loss is the closed form at policy = reference, K = 4, at temperature 0.8 too."""
    rewards = [0.3, -1.0, 0.7, 0.0]
    log_q = (torch.tensor(rewards) / 0.5).log_softmax(0)
    wanted = {"exo-rw": -math.log(4) - log_q.mean().item(), "dpo-rw": math.log(4), "exo-pref": 5 - math.log(2),
              "dpo-pref": math.log(2), "ipo": 1.0, "robust": 2 * math.log(2)}
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    for loss, number in wanted.items():
        policy = load.load_policy(folder, "cpu", "fp32", train=True)
        examples = tiny.stored(tiny.example(3 + 5 * i, 5 + i, 9 - i, 4, 2, rewards=rewards) for i in range(5))
        recipe = tiny.recipe(tmp_path / loss, steps=1, batch_size=5, pack_tokens=60)
        run = Run(recipe, {"command": "test"})
        run.reads(0)
        objective = tiny.contrast(loss, temperature=0.8, smoothing=0.1 if loss == "robust" else 0.0)
        add_ref_logps(policy, examples, recipe, run, lambda batch, p=policy: p.logps(batch, 0.8))
        entry = loop.fit(policy, examples, objective, recipe, run)
        assert abs(entry["loss"] - number) < 2e-6, loss
        assert entry["margin"] == entry["kl"] == 0.0 and entry["accuracy"] == 0.5, (loss, entry)


def test_what_was_kept_is_data_alone(tmp_path):
    """A pickle bomb is not run; what is cut, gone or of other records is said to be."""
    file, run = tmp_path / "ref_logps.pt", Run(tiny.recipe(tmp_path / "run"), {})
    counts, columns = [2, 3], [torch.zeros(count, dtype=torch.float64) for count in (2, 3)]
    assert read_ref_logps(file, run, counts) is None
    torch.save(columns, file)
    assert [column.tolist() for column in read_ref_logps(file, run, counts)] == [[0, 0], [0, 0, 0]]
    for other, words in ((columns[:1], "of other records"), (columns[::-1], "of other records"),
                         ([columns[0], columns[1].float()], "of other records"), ({"a": 1}, "not what al-train-exo"),
                         ([{0: [1.0]}, {}], "not what al-train-exo"), (columns[0], "not what al-train-exo")):
        torch.save(other, file)
        with pytest.raises(click.UsageError, match=f"ref_logps.pt: {words}.*: train anew"):
            read_ref_logps(file, run, counts)
    proof = bomb.plant(file)
    with pytest.raises(click.UsageError, match="ref_logps.pt: no log-probabilities .* read safely"):
        read_ref_logps(file, run, counts)
    assert not proof.exists()
    file.unlink()
    run.checkpoint = tmp_path  # its policy has moved
    with pytest.raises(click.UsageError, match="ref_logps.pt: gone; .* train anew"):
        read_ref_logps(file, run, counts)
