"""What a run begins with: judges, a critic, samples without those of a killed run."""

import json

import click
import pytest
import torch

from al_train_ppo import start
from al_train_ppo.rollout import Prompt
from alignlib import ranks
from alignlib.models import load
from alignlib.records import disk
from helpers import tiny
from helpers.commands import folders, lines, read, rewarded, run


class Unbroken:
    """A run that begins."""

    checkpoint = None


class Begun:
    """A session of this recipe."""

    def __init__(self, **changes):
        self.recipe, self.run = tiny.recipe("x", **changes), Unbroken()


def test_rewards_are_summed_by_their_weights(tmp_path):
    """A model, an oracle and a program, each as al-score has it; ids of the policy are not the reward model's."""
    (tmp_path / "r.py").write_text("def words(record, completions):\n    return [len(t.split()) for t in completions]")
    names = (folders().reward, "2:toy:helpful", f"-0.5:py:{tmp_path}/r.py:words")
    records = rewarded(3)
    with start.judges(names, tiny.recipe("x")) as judge:
        rows = judge(["here"] * 3, [{**record, "completion_ids": [[1]] * 4} for record in records])
    parts = [[record["rewards"] for record in read(run("al-score", name.partition(":")[2] if name[1] in ":0" else name,
                                                       "--dtype", "fp32", stdin=lines(*records)).stdout)]
             for name in (folders().reward, "2:toy:helpful")]
    for i, record in enumerate(records):
        words = [len(text.split()) for text in record["completions"]]
        assert rows[i] == pytest.approx([a + 2 * b - 0.5 * c for a, b, c in zip(parts[0][i], parts[1][i], words,
                                                                               strict=True)], abs=1e-4)


def test_other_processes_get_the_prompts_that_the_first_has_read(monkeypatch):
    """They have no programs, which say what is left out."""
    session, told, waited = Begun(), (([Prompt(0, {"prompt": "a"}, [1], "in:2")], []), 1), []
    session.wait = lambda: waited.append("patiently")
    monkeypatch.setattr(ranks, "first", lambda: False)
    monkeypatch.setattr(ranks, "share", lambda work: told)
    assert start.read_prompts(session, None, None) == told[0]
    assert session.run.skipped == 1 and waited


def test_the_critic_begins_from_a_reward_model_that_reads_the_same_tokens(tmp_path):
    policy = load.load_policy(folders().policy, "cpu", "fp32")
    foreign = tiny.save(tiny.classifier("llama"), tmp_path / "foreign")
    assert start.first_like(policy, ["toy:helpful", foreign, f"0.5:{folders().reward}"]) == folders().reward
    assert start.first_like(policy, ["length", foreign]) is None


def test_a_critic_from_a_policy_expects_nothing_yet():
    critic = start.load_critic(Begun(), folders().policy)
    assert not critic.core.score.weight.any() and critic.core.config.num_labels == 1
    policy = load.load_policy(folders().policy, "cpu", "fp32")
    torch.testing.assert_close(critic.core.model.state_dict(), policy.core.model.state_dict())
    judge = start.load_critic(Begun(), folders().reward)
    assert judge.core.score.weight.any()
    with pytest.raises(click.UsageError, match="not a reward model with one label"):
        start.load_critic(Begun(), folders().classifier)


@pytest.mark.parametrize(("lora", "whole"), [(None, True), (2, False)])
def test_a_critic_beside_an_adapter_over_4_bits_trains_whole_unless_adapters_are_its_own(lora, whole):
    critic = start.load_critic(Begun(load_4bit=True, save_adapter=True, lora=lora), folders().reward)
    weights = {weight.dtype for name, weight in critic.core.named_parameters() if "_proj" in name}
    assert weights == ({torch.float32} if whole else {torch.uint8})
    assert all(weight.requires_grad for weight in critic.core.parameters()) == whole


def test_samples_after_the_checkpoint_go(tmp_path):
    """With the first that come; a run that fails before takes nothing, and leaves no file of its own."""
    file, session = tmp_path / "samples", Begun(resume=True)
    written = "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4'
    file.write_text(written)
    session.run.checkpoint = tmp_path / "checkpoint-2"
    with pytest.raises(KeyError), start.samples_file(str(file), session):
        raise KeyError
    assert file.read_text() == written
    with start.samples_file(str(file), session) as samples:
        samples.write(b'{"step": 3, "again": true}\n')
        with pytest.raises(disk.StateError, match="samples: another run is writing it"), \
                start.samples_file(str(file), Begun()):
            pass
    assert read(file.read_text()) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    with start.samples_file(str(file), Begun()):
        pass
    assert file.read_text() == ""
    with pytest.raises(KeyError), start.samples_file(str(tmp_path / "new"), Begun()):
        raise KeyError
    assert not (tmp_path / "new").exists()
    with start.samples_file(None, session) as samples:
        assert samples is None


def test_samples_that_are_none_are_not_gone_on_with(tmp_path):
    file, session = tmp_path / "samples", Begun(resume=True)
    session.run.checkpoint = tmp_path / "checkpoint-2"
    for content in (b"a text\n", b'{"prompt": "p"}\n', b"[1]\n", b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(click.UsageError, match="samples: not what this run wrote"), \
                start.samples_file(str(file), session):
            pass
        assert file.read_bytes() == content
