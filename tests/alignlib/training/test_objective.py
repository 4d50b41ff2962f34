"""The base of all losses: what a new one must say, and what it may leave out."""

import pytest
import torch

from alignlib.training.batches import Shuffled
from alignlib.training.objective import Objective
from helpers import tiny
from helpers.training import examples, fit, log


def test_hooks_do_nothing_unless_overridden():
    objective, entry = Objective(), {"loss": 1.0}
    assert objective.size(tiny.example(3, 2, 5)) == 1 and not objective.whole_step and objective.sized == ()
    assert objective.settle([], []) is None and objective.stepped(entry) is None and entry == {"loss": 1.0}
    order = objective.order(examples(5), batch_size=2)
    assert isinstance(order, Shuffled) and len(order) == 5


def test_what_a_loss_has_to_say():
    for call in (lambda: Objective().example(None, {}), lambda: Objective()(None, None),
                 lambda: Objective().step_loss([])):
        with pytest.raises(NotImplementedError):
            call()


def test_what_one_learns_no_other_knows():
    one, other = Objective(), Objective()
    one.state["coefficient"] = 2
    assert other.state == {}


class Likelihood(Objective):
    """The shortest there can be: no more than its loss. It counts its steps."""

    def __call__(self, model, batch):
        logps = model.logps(batch)
        return -logps.sum(), {"logp": logps.sum()}

    def stepped(self, entry):
        self.state["steps"] = self.state.get("steps", 0) + 1
        entry["steps"] = self.state["steps"]


def test_a_loss_is_one_class(tmp_path):
    """Its figures are means over examples, as its loss is; what it learns is in the log, and in checkpoints."""
    _, run = fit(tmp_path / "run", objective=Likelihood(), steps=3, save_every=2, keep=0)
    entries = log(run.folder)
    assert [entry["steps"] for entry in entries] == [1, 2, 3]
    assert all(entry["logp"] == pytest.approx(-entry["loss"]) for entry in entries)


class WholeStep(Likelihood):
    """The same loss, known at the step's end: of each pack it keeps its part."""

    whole_step = True

    def __call__(self, model, batch):
        loss, figures = super().__call__(model, batch)
        self.losses.append(loss)
        return loss, figures

    def step_loss(self, counts):
        losses, self.losses = self.losses, []
        return torch.stack([loss * counted for loss, counted in zip(losses, counts, strict=True)]).sum()


def test_a_loss_may_wait_for_the_whole_step(tmp_path):
    """Several packs a step: the weights are those of the loss that is passed back pack by pack."""
    whole = WholeStep()
    whole.losses = []
    how = {"steps": 3, "pack_tokens": 40, "lr": 1e-3}
    entries = [log(fit(tmp_path / name, objective=objective, **how)[1].folder)
               for name, objective in (("parts", Likelihood()), ("whole", whole))]
    assert [entry["loss"] for entry in entries[1]] == pytest.approx([entry["loss"] for entry in entries[0]], rel=1e-5)
