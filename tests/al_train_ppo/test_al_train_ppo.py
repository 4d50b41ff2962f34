"""al-train-ppo: what it learns, its log, resuming, what it refuses."""

import json
import math
import string
from types import SimpleNamespace

import pytest
import torch

from al_train_ppo import start
from al_train_ppo.course import OnPolicy, Reference
from al_train_ppo.rollout import Prompt, prompt_of
from alignlib.models import load
from alignlib.training import memory_plan
from alignlib.training.engine import PlainEngine
from alignlib.training.memory_states import Along, cache_bytes
from helpers import adapted, tiny
from helpers.commands import apart, folders, lines, log, one_line, prompts, read, rewarded, run, stopped, weights
from helpers.memory_ranks import living
from helpers.on_policy import settings

pytestmark = pytest.mark.slow

SMALL = ("-n", 4, "--prompts", 4, "--batch-size", 8, "-m", 10, "--dtype", "fp32", "--warmup", 0)


def train(*args, model=None, out=None, count=8, code=0):
    """The folder, and its log."""
    out = out or folders().new("ppo")
    done = run("al-train-ppo", model or folders().policy, "-o", out, *SMALL, *args, stdin=lines(*prompts(count)))
    assert done.returncode == code, done.stderr
    return out, log(out)


def refused(*args, code=2, count=8, model=None) -> str:
    out = folders().new("ppo")
    given = () if "--reward" in args else ("--reward", "toy:helpful")
    done = run("al-train-ppo", model or folders().policy, "-o", out, *SMALL, *given, *args,
               stdin=lines(*prompts(count)))
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return one_line(done.stderr)


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_a_reward_that_counts_a_letter_goes_to_its_maximum(method, tmp_path):
    """The loop learns what it is told: 10 tokens with two e each are worth 20, what MODEL says some 1.7."""
    (tmp_path / "reward.py").write_text("def count(record, completions):\n"
                                        "    return [float(text.count('e')) for text in completions]\n")
    out, entries = train("--method", method, "--reward", f"py:{tmp_path}/reward.py:count", "--steps", 40, "--lr", 1e-2,
                         "--kl-coef", 1e-9, "--batch-size", 16, "--schedule", "constant")
    rewards = [entry["reward"] for entry in entries]
    assert max(rewards[:3]) < 4 and min(rewards[-3:]) > 14
    assert entries[0]["kl"] == pytest.approx(0, abs=1e-6) and entries[0]["clip_share"] == 0
    assert entries[-1]["kl"] > 5 and entries[-1]["entropy"] < entries[0]["entropy"] - 1
    critic = out / "critic"
    assert critic.exists() == (method == "ppo")
    if method == "ppo":
        assert {"value_loss", "explained_variance", "critic_grad_norm"} <= set(entries[0])
        done = run("al-score", critic, stdin=lines(*rewarded(2)))
        assert done.returncode == 0 and len(read(done.stdout)[0]["rewards"]) == 4


def test_the_log_says_what_was_drawn():
    out, entries = train("--method", "grpo", "--reward", "toy:helpful", "--reward", "0.5:toy:harmless", "--steps", 2,
                         "--log-samples", samples := folders().new("samples"))
    kept = read(samples.read_text())
    assert {record["step"] for record in kept} == {1, 2} and len(kept) == 8
    entry, some = entries[0], [record for record in kept if record["step"] == 1]
    rewards = [reward for record in some for reward in record["rewards"]]
    assert entry["reward"] == pytest.approx(sum(rewards) / len(rewards))
    cut = [reason for record in some for reason in record["finish_reasons"]].count("length")
    assert entry["share_cut"] == cut / 16
    assert entry["equal_groups"] == sum(len(set(record["rewards"])) == 1 for record in some)
    halves = {name: read(run("al-score", f"toy:{name}", stdin=lines(*some)).stdout) for name in ("helpful", "harmless")}
    for record, one, other in zip(some, halves["helpful"], halves["harmless"], strict=True):
        assert record["rewards"] == pytest.approx([a + b / 2 for a, b in zip(one["rewards"], other["rewards"],
                                                                             strict=True)])
    scored = read(run("al-score", folders().policy, "--logps", "--dtype", "fp32", stdin=lines(*some)).stdout)
    for record, same in zip(some, scored, strict=True):  # the policy of the first rollout is MODEL
        assert record["logps"] == pytest.approx(same["logps"], abs=1e-4)
    assert run("al-eval", "text", samples).returncode == 0
    assert json.loads((out / "run.json").read_text())["options"]["rewards"] == ["toy:helpful", "0.5:toy:harmless"]


def test_what_is_read_by_the_loss_alone_is_said_too():
    """Without a reference and with one update a rollout nothing is read before it."""
    _, entries = train("--method", "grpo", "--reward", "toy:helpful", "--steps", 1, "--kl-coef", 0,
                       "--log-samples", samples := folders().new("samples"))
    some = read(samples.read_text())
    scored = read(run("al-score", folders().policy, "--logps", "--dtype", "fp32", stdin=lines(*some)).stdout)
    for record, same in zip(some, scored, strict=True):
        assert record["logps"] == pytest.approx(same["logps"], abs=1e-4)
    tokens = sum(len(ids) + (end is not None) for record in some
                 for ids, end in zip(record["completion_ids"], record["end_ids"], strict=True))
    assert entries[0]["entropy"] == pytest.approx(-sum(sum(record["logps"]) for record in some) / tokens)


@pytest.mark.parametrize("more", [
    ("--method", "ppo", "--lora", 2, "--kl-target", 1),
    *(pytest.param(more, marks=pytest.mark.long) for more in (
        ("--method", "ppo"), ("--method", "grpo", "--passes", 2), ("--method", "rloo", "--lora", 2)))])
def test_a_stopped_run_goes_on_as_if_it_had_not(more, tmp_path):
    """SIGTERM saves after the rollout under way: weights, critic and log are those of an unbroken run."""
    how = (*more, "--reward", "toy:helpful", "--steps", 60, "--lr", "1e-2", "--log-samples", tmp_path / "samples")
    how = (*how, "--prompts", 1, "--batch-size", 4, "-m", 3)
    whole, entries = train(*how)
    kept = (tmp_path / "samples").read_bytes()
    out = folders().new("ppo")
    argv = (folders().policy, "-o", out, *SMALL, *how)
    code, _, said = stopped("al-train-ppo", *argv, stdin=lines(*prompts(8)))
    assert code == 143 and "SIGTERM" in said
    assert 0 < len(log(out)) < 60
    _, resumed = train(*how, "--resume", out=out)
    assert resumed == entries and weights(out) == weights(whole)
    assert (tmp_path / "samples").read_bytes() == kept
    if "ppo" in more:
        assert weights(out / "critic") == weights(whole / "critic")


@pytest.mark.long
@pytest.mark.parametrize(("method", "zero"), [("ppo", 0), ("ppo", 2), ("ppo", 3), ("grpo", 2), ("rloo", 3)])
def test_two_processes_learn_what_one_learns(method, zero, tmp_path):
    """6 updates in float32: policy and critic within 1e-5."""
    (tmp_path / "in").write_bytes(lines(*prompts(8)))
    how = ("--method", method, "--reward", folders().reward, "--reward", "toy:helpful", "--steps", 3, "--lr", "1e-3",
           tmp_path / "in")
    one, entries = train(*how)
    two, others = train(*how, "--launch", 2, "--zero", zero)
    for name in ("", "critic") if method == "ppo" else ("",):
        assert apart(one / name, two / name, but=1e-4) < 1e-5 and apart(one / name, two / name) < 2e-5
    for figure in ("reward", "grad_norm"):
        assert [entry[figure] for entry in entries] == pytest.approx([entry[figure] for entry in others], rel=1e-5)


@pytest.mark.long
def test_two_processes_go_on_after_they_were_stopped(tmp_path):
    """What ZeRO has dealt out of policy and critic is in the checkpoint."""
    (tmp_path / "in").write_bytes(lines(*prompts(8)))
    how = ("--method", "ppo", "--reward", "toy:helpful", "--steps", 60, "--lr", "1e-3", "--prompts", 1, "--batch-size",
           4, "-m", 3, tmp_path / "in", "--launch", 2, "--zero", 2)
    whole, entries = train(*how)
    out = folders().new("ppo")
    code, _, said = stopped("al-train-ppo", folders().policy, "-o", out, *SMALL, *how, stdin=b"")
    assert code == 143 and "SIGTERM" in said and 0 < len(log(out)) < 60
    _, resumed = train(*how, "--resume", out=out)
    assert resumed == entries and weights(out) == weights(whole)
    assert weights(out / "critic") == weights(whole / "critic")


def test_held_out_prompts_choose_the_policy(tmp_path):
    (tmp_path / "eval").write_bytes(lines(*prompts(12)[8:]))
    out, entries = train("--method", "grpo", "--reward", folders().reward, "--steps", 4, "--lr", "1e-2",
                         "--eval", tmp_path / "eval", "--eval-every", 1)
    rewards = [entry["eval_reward"] for entry in entries]
    final = json.loads((out / "run.json").read_text())["final"]
    assert final["best_reward"] == max(rewards) and final["best_step"] == rewards.index(max(rewards)) + 1
    assert entries[0]["eval_kl"] > -1 and entries[0]["eval_length"] > 0


def test_an_adapter_is_its_own_reference_switched_off():
    """LoRA, and a whole model with a copy: the same KL of 0 at the start; with LoRA the base stays what it was."""
    out, entries = train("--method", "grpo", "--reward", "toy:helpful", "--steps", 3, "--lora", 2, "--lr", "3e-2",
                         "--save-adapter")
    assert entries[0]["kl"] == pytest.approx(0, abs=1e-6) and entries[-1]["kl"] != 0
    assert (out / "adapter_model.safetensors").exists()
    model = adapted.adapter(folders().new("adapter"), folders().policy)
    _, entries = train("--method", "rloo", "--reward", "toy:helpful", "--steps", 2, "--lr", "3e-2", model=model)
    assert entries[0]["kl"] == pytest.approx(0, abs=1e-4) and abs(entries[1]["kl"]) > 1e-4


def test_a_critic_without_lora_is_saved_whole_beside_an_adapter():
    """Where training goes on in an adapter; into checkpoints too."""
    model = adapted.adapter(folders().new("adapter"), folders().policy)
    how = ("--method", "ppo", "--reward", folders().reward, "--lr", "1e-2", "--save-adapter", "--save-every", 1)
    whole, _ = train(*how, "--steps", 2, "--keep", 0, model=model)
    for folder in (whole, whole / "checkpoint-1"):
        assert (folder / "adapter_model.safetensors").exists() and not (folder / "model.safetensors").exists()
        assert (folder / "critic" / "model.safetensors").exists()
        assert not (folder / "critic" / "adapter_config.json").exists()
    answers = ({**record, "completions": ["a"]} for record in prompts(2))
    scored = run("al-score", whole / "critic", stdin=lines(*answers))
    assert len(read(scored.stdout)) == 2


@pytest.mark.long
def test_such_a_run_goes_on_after_a_stop():
    model = adapted.adapter(folders().new("adapter"), folders().policy)
    how = ("--method", "ppo", "--reward", folders().reward, "--lr", "1e-2", "--save-adapter", "--steps", 60,
           "--prompts", 1, "--batch-size", 4, "-m", 3)
    whole, entries = train(*how, model=model)
    out = folders().new("ppo")
    code, _, _ = stopped("al-train-ppo", model, "-o", out, *SMALL, *how, stdin=lines(*prompts(8)))
    assert code == 143 and 0 < len(log(out)) < 60
    _, resumed = train(*how, "--resume", model=model, out=out)
    assert resumed == entries and weights(out / "critic") == weights(whole / "critic")
    assert (out / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()


def test_a_critic_of_a_value_head_with_a_bias_goes_on_and_is_read(tmp_path):
    """As trl saves it: it is stopped in its second rollout, and its values are those of a run that was not."""
    from safetensors.torch import load_file, save_file

    value = folders().saying(folders().reward, architectures=["LlamaForCausalLM"])
    state = load_file(value / "model.safetensors")
    state["v_head.summary.weight"], state["v_head.summary.bias"] = state.pop("score.weight"), torch.tensor([3.5])
    save_file(state, value / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "judge.py").write_text(
        "import pathlib\ncalls = []\n\n\ndef letters(record, texts):\n    calls.append(1)\n"
        "    if len(calls) > 4 and pathlib.Path(__file__).with_name('ill').exists():\n        return None\n"
        "    return [float(text.count('e')) for text in texts]\n")
    how = ("--reward", f"py:{tmp_path / 'judge.py'}:letters", "--critic", value, "--steps", 2, "--lr", "1e-2")
    whole, entries = train(*how)
    (tmp_path / "ill").touch()
    out, _ = train(*how, code=1)
    (tmp_path / "ill").unlink()
    _, resumed = train(*how, "--resume", out=out)
    assert resumed == entries and weights(out / "critic") == weights(whole / "critic")
    assert 3 < load_file(whole / "critic" / "model.safetensors")["score.bias"].item() < 4
    scored = run("al-score", whole / "critic", stdin=lines(*rewarded(2)))
    assert scored.returncode == 0, scored.stderr


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
@pytest.mark.parametrize("stop", ["e", string.printable + "\ufffd"])
def test_answers_may_be_empty(method, stop):
    """Where a stop string comes first: some, and nearly all."""
    _, entries = train("--method", method, "--reward", "toy:helpful", "--steps", 3, "--lr", "1e-3",
                       *(word for letter in stop for word in ("--stop", letter)))
    assert all(math.isfinite(entry["loss"]) and entry["length"] < 10 for entry in entries)
    assert (entries[0]["length"] < 0.5) == (stop != "e")


def test_gradient_checkpointing_changes_no_weight():
    """Neither of the policy nor of the critic."""
    how = ("--method", "ppo", "--reward", "toy:helpful", "--steps", 2, "--lr", "1e-3")
    (plain, entries), (checkpointed, again) = train(*how), train(*how, "--gradient-checkpointing")
    assert weights(plain) == weights(checkpointed) and weights(plain / "critic") == weights(checkpointed / "critic")
    assert entries == again


def test_texts_are_learnt_beside(tmp_path):
    """Their loss falls, where it weighs much."""
    pairs = [{"prompt": record["prompt"], "chosen": " I am here."} for record in prompts(4)]
    (tmp_path / "ptx").write_bytes(lines(*pairs))
    _, entries = train("--method", "grpo", "--reward", "toy:helpful", "--steps", 6, "--lr", "1e-2", "--ptx",
                       tmp_path / "ptx", "--ptx-coef", 10)
    assert entries[-1]["ptx_loss"] < entries[0]["ptx_loss"] - 0.5


def test_the_plan_counts_what_is_there():
    """A reference beside, a critic that trains, a reward model that is asked; nothing is trained."""
    def asked(*args):
        done = run("al-train-ppo", folders().policy, *SMALL, "--plan", *args)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["asked"]

    count = {name: sum(len(tensor) / 4 for tensor in weights(path).values()) / 1e9
             for name, path in (("policy", folders().policy), ("reward", folders().reward))}
    bare = asked("--method", "grpo", "--reward", "length", "--kl-coef", 0)
    assert bare["weights"] == pytest.approx(4 * count["policy"])
    assert bare["optimizer"] == pytest.approx(2 * bare["weights"])
    assert asked("--method", "grpo", "--reward", "length")["weights"] == pytest.approx(2 * bare["weights"])
    judged = asked("--method", "grpo", "--reward", folders().reward, "--kl-coef", 0)
    assert judged["weights"] == pytest.approx(bare["weights"] + 4 * count["reward"])
    critic = asked("--method", "ppo", "--reward", folders().reward, "--kl-coef", 0)
    assert critic["weights"] == pytest.approx(bare["weights"] + 8 * count["reward"])
    assert critic["optimizer"] == pytest.approx(bare["optimizer"] + 8 * count["reward"])
    assert not bare["models"]
    kept = cache_bytes(load.load_config(folders().policy), 4 * 8192, 4) / 1e9  # four packs' tokens
    assert bare["caches"] == pytest.approx(kept)
    narrow = asked("--method", "grpo", "--reward", "length", "--dtype", "bf16")["caches"]
    assert narrow == pytest.approx(kept / 2 + 2 * count["policy"])  # and the weights as they are multiplied
    each = asked("--method", "ppo", "--reward", folders().reward)["models"]
    assert each == pytest.approx({"policy": 16 * count["policy"], "reference": 4 * count["policy"],
                                  f"critic, begun from {folders().reward}": 16 * count["reward"],
                                  str(folders().reward): 4 * count["reward"]})


@pytest.mark.parametrize(("command", "more"), [
    pytest.param("al-train-ppo", ["--method", "grpo", "--reward", "length", *SMALL], marks=pytest.mark.long),
    ("al-train-alt", ["--kl-coef", 0.05])])
def test_where_training_goes_on_in_an_adapter_its_copy_is_counted_as_the_reference(command, more):
    """Over a whole model the reference is that one with the new adapter off: with none the plan is the same."""
    model = adapted.adapter(folders().new("adapter"), folders().policy)
    weights_of = {}
    for name, path, kl in (("adapter", model, more), ("bare", model, [*more, "--kl-coef", 0]),
                           ("new", folders().policy, more), ("new, bare", folders().policy, [*more, "--kl-coef", 0])):
        done = run(command, path, "--lora", 4, "--plan", *kl)
        assert done.returncode == 0, done.stderr
        weights_of[name] = json.loads(done.stdout)["asked"]["weights"]
    assert weights_of["adapter"] > 1.4 * weights_of["bare"] and weights_of["new"] == weights_of["new, bare"]


def test_what_is_kept_in_memory_is_what_the_plan_says():
    """Policy and critic with their optimizers, a copy to compare with, a reward model: after two rollouts, within 2 %.
    """
    session = SimpleNamespace(recipe=tiny.recipe("x", batch_size=8, pack_tokens=1200),
                              run=SimpleNamespace(checkpoint=None, beside={}))
    before = living()
    policy = load.load_policy(folders().policy, "cpu", "fp32", train=True)
    encoder = load.encoder_for(policy, max_length=150, max_prompt=120, max_completion=31)
    asked = [Prompt(i, *prompt_of(encoder, record)) for i, record in enumerate(prompts(8))]
    how = settings(method="ppo", prompts=8, max_new_tokens=30, temperature=1.0)
    with start.judges([folders().reward], session.recipe) as judge:
        course = OnPolicy(policy, encoder, how, session.recipe, asked, (), judge,
                          Reference(load.load_policy(folders().policy, "cpu", "fp32", train=True)),
                          start.load_critic(session, folders().reward), session.recipe)
        engine = PlainEngine(policy, session.recipe, course.updates)
        course.begin(session.run)
        for step in range(2):
            course.learn(step, engine)
        found = living() - before
    planned = memory_plan.plan(folders().policy, session.recipe, 1, reference=True, samples=True,
                               along=[Along(folders().reward, trained=True), Along(folders().reward)])["asked"]
    assert found == pytest.approx(1e9 * (planned["weights"] + planned["optimizer"]), rel=0.02)


@pytest.mark.parametrize("args,message", [
    (("--method", "grpo", "-n", 1), "--method grpo compares the answers to a prompt"),
    (("--method", "rloo", "-n", 1), "--method rloo compares the answers to a prompt"),
    (("--method", "grpo", "--whiten"), "--whiten does nothing for --method grpo"),
    (("--method", "rloo", "--lambda", 0.5), "--lambda does nothing for --method rloo"),
    (("--method", "rloo", "--loss-mean", "token"), "--loss-mean does nothing for --method rloo"),
    (("--method", "ppo", "--no-scaled"), "--scaled does nothing for --method ppo"),
    (("--batch-size", 6), "--batch-size 6: answers, 4 a prompt"),
    (("--compile",), "--compile: drawing token by token would not gain by it"),
    (("--lora", 2, "--lora-dropout", 0.1), "--lora-dropout: pi / pi_old would not begin at 1"),
    (("--ptx-coef", 2), "--ptx-coef goes with --ptx"),
    (("--kl-target", 1, "--kl-coef", 0), "--kl-target adapts --kl-coef, which is 0"),
    (("-m", 160), "--max-new-tokens 160: the model's context is 160 tokens"),
    (("--reward", "toy:nothing"), "toy:nothing: no such oracle"),
])
def test_what_cannot_be_is_refused(args, message):
    assert message in refused(*args)


def test_models_that_do_not_fit_are_named():
    assert "a reward model (sequence classifier); a policy is needed" in refused(model=folders().reward)
    assert "a reward model (sequence classifier) is needed here" in refused("--reward", folders().policy)
    assert "not a reward model with one label" in refused("--critic", folders().classifier)


def test_the_first_update_is_the_policy_gradient(tmp_path):
    """RLOO's first step on one prompt, against the gradient of its formula: SGD is not offered, so by AdamW's sign."""
    out, _ = train("--method", "rloo", "--reward", folders().reward, "--steps", 1, "--lr", "1e-3", "--kl-coef", 0,
                   "--prompts", 2, "--log-samples", samples := tmp_path / "samples", "--clip", 0)
    policy = load.load_policy(folders().policy, "cpu", "fp32", train=True)
    encoder, loss = load.encoder_for(policy), 0.0
    for record in read(samples.read_text()):
        rewards = torch.tensor(record["rewards"])
        gains = rewards - (rewards.sum() - rewards) / 3
        loss = loss - (policy.logps(policy.pack([encoder.encode(record, record["completions"])]))[0] * gains).sum()
    loss.backward()
    name, weight = "model.layers.0.mlp.up_proj.weight", policy.core.model.layers[0].mlp.up_proj.weight
    trained = load.load_policy(str(out), "cpu", "fp32").core.state_dict()[name]
    large = weight.grad.abs() > weight.grad.abs().median()
    assert torch.equal((weight - trained).sign()[large], weight.grad.sign()[large])
