"""What DeepSpeed is configured to do, and when it is asked for; what it then makes on several ranks: test_ranks.py."""

import json
import os
import re

import click
import pytest
import torch

from alignlib import ranks
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.training.engine import AskingEngine, PlainEngine
from alignlib.training.zero import (
    asking_engine_for,
    configuration,
    digests,
    distributed,
    engine_for,
    made_by,
    merged,
    must_be_ours,
    whole_models,
)
from helpers import tiny


def test_a_configuration_of_ones_own_wins(tmp_path):
    own = {"zero_optimization": {"stage": 1, "overlap_comm": False}, "train_batch_size": "auto", "fp16": "auto",
           "gradient_clipping": 0.25, "optimizer": {"type": "Adam", "params": {"lr": "auto", "eps": 1e-6}},
           "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}}
    (tmp_path / "ds.json").write_text(json.dumps(own))
    found = configuration(tiny.recipe("x", deepspeed=str(tmp_path / "ds.json"), zero=3, lr=0.5, clip=1.0))
    assert found["zero_optimization"] == {"stage": 1, "overlap_comm": False}
    assert found["gradient_clipping"] == 0.25 and not found["fp16"]["enabled"]
    assert found["optimizer"]["params"] == {"lr": 0.5, "eps": 1e-6} and "scheduler" not in found
    assert (found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (1, 1)


@pytest.mark.parametrize("text, said", [
    ("{", "not JSON"), ("[]", "not a JSON object"),
    ('{"train_batch_size": 7}', "train_batch_size 7: it is --batch-size 4 here"),
    ('{"gradient_accumulation_steps": 2}', "gradient_accumulation_steps 2: it is --batch-size and --pack-tokens here"),
])
def test_what_a_configuration_may_not_say(text, said, tmp_path):
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(click.UsageError, match="ds.json: " + re.escape(said)):
        configuration(tiny.recipe("x", deepspeed=str(tmp_path / "ds.json")))


@pytest.mark.parametrize(("changes", "said"), [
    ({"lora_lr": 1e-4}, "its optimizer knows nothing of --lora-lr; leave one of them out"),
    ({"optimizer": "rmsprop"}, "its optimizer knows nothing of --optimizer rmsprop; leave one of them out"),
])
def test_an_optimizer_of_ones_own_takes_no_other(changes, said, tmp_path):
    (tmp_path / "ds.json").write_text('{"optimizer": {"type": "Adam", "params": {"lr": "auto"}}}')
    with pytest.raises(click.UsageError, match="ds.json: " + re.escape(said)):
        configuration(tiny.recipe("x", deepspeed=str(tmp_path / "ds.json"), **changes))
    (tmp_path / "ds.json").write_text("{}")
    assert "optimizer" not in configuration(tiny.recipe("x", deepspeed=str(tmp_path / "ds.json"), **changes))


@pytest.mark.slow
def test_what_is_asked_alone_is_loaded_whole():
    """Under ZeRO 3 transformers deals models out as it loads them, but not there."""
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    alive = HfDeepSpeedConfig(configuration(tiny.recipe("x", zero=3)))
    with whole_models():
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    del alive
    assert not is_deepspeed_zero3_enabled()


@pytest.mark.parametrize(("changes", "stage", "devices"), [
    ({}, 2, set()),
    ({"zero": 1}, 1, set()),
    ({"zero": 0}, 0, set()),
    ({"offload": "optimizer"}, 2, {"offload_optimizer"}),
    ({"offload": "all"}, 3, {"offload_optimizer", "offload_param"}),
])
def test_the_stage_and_what_is_kept_in_the_hosts_memory(changes, stage, devices):
    zero = configuration(tiny.recipe("x", **changes))["zero_optimization"]
    assert zero["stage"] == stage and set(zero) - {"stage"} == devices
    assert all(zero[name] == {"device": "cpu"} for name in devices)


def test_bf16_is_deepspeeds_from_stage_1_on():
    found = [configuration(tiny.recipe("x", dtype="bf16", zero=zero))["bf16"]["enabled"] for zero in range(4)]
    assert found == [False, True, True, True]


def test_theirs_stands_over_ours_and_auto_is_ours():
    ours = {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}
    assert merged(ours, {"a": "auto", "b": {"c": 5}, "e": {"f": "auto", "g": 6}, "h": "auto"}) == {
        "a": 1, "b": {"c": 5, "d": 3}, "e": {"g": 6}}
    assert ours == {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}


@pytest.mark.parametrize("own", [False, True])
def test_fp16_without_zero_is_refused(own, tmp_path, monkeypatch):
    """DeepSpeed's optimizer divides by the scale of the loss there; nobody has multiplied by it."""
    monkeypatch.setattr(load, "device_for", lambda name: torch.device("cuda"))
    given = {"dtype": "fp16"}
    if own:
        (tmp_path / "ds.json").write_text('{"fp16": {"enabled": true}}')
        given = {"dtype": "fp32", "deepspeed": str(tmp_path / "ds.json")}
    with pytest.raises(click.UsageError, match="--dtype fp16 --zero 0: .*; use --zero 1, or --dtype bf16"):
        configuration(tiny.recipe("x", zero=0, **given))
    assert configuration(tiny.recipe("x", zero=1, **given))["fp16"]["enabled"]


@pytest.fixture
def met(monkeypatch):
    """What `distributed` has done to a group that is none: [its device and the number of it, "left"]."""
    done = []
    monkeypatch.setattr(ranks, "connect", lambda *device: done.append(device))
    monkeypatch.setattr("alignlib.training.zero.import_deepspeed", lambda: None)  # its log would be pytest's
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: done.append("left"))
    return done


def test_only_who_has_succeeded_waits_for_the_group_to_end(met):
    """NCCL ends it together; a rank that fails alone has to say so, and go."""
    with distributed(tiny.recipe("x", zero=1, device="cpu")):
        pass
    assert met == [("cpu", 0), "left"]
    with pytest.raises(ValueError, match="mine"), distributed(tiny.recipe("x", zero=1, device="cpu")):
        raise ValueError("mine")
    assert met == [("cpu", 0), "left", ("cpu", 0)]


@pytest.mark.parametrize(("name", "number"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_deepspeed_is_on_the_device_that_was_asked_for(name, number, met, monkeypatch):
    """torch's set_device takes no device without a number."""
    chosen = []
    monkeypatch.setattr(load, "device_for", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with distributed(tiny.recipe("x", zero=1, device=name, dtype="fp32")):
        pass
    assert chosen == [number] and met == [("cuda", number), "left"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_group_of_one_has_its_devices_number_for_a_local_rank(number, monkeypatch):
    """Where DeepSpeed puts the model; the one rank is the first of its machine all the same."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **more: None)
    ranks.connect("cuda", number)
    assert os.environ["LOCAL_RANK"] == str(number) and ranks.local() == ranks.rank() == 0


def test_one_process_without_its_options_is_plain_torch():
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    assert isinstance(engine_for(policy, tiny.recipe("x"), 1), PlainEngine)
    assert isinstance(asking_engine_for(policy, tiny.recipe("x")), AskingEngine)


@pytest.mark.parametrize(("state", "makers"), [({"ranks": 0, "step": 1}, (0, None)),
                                                ({"ranks": 2, "stage": 3, "step": 1}, (2, 3))])
def test_a_checkpoint_knows_who_made_it(state, makers, tmp_path):
    torch.save(state, tmp_path / "trainer.pt")
    assert made_by(tmp_path) == makers


def left_by_a_run(checkpoint, **more):
    """What DeepSpeed leaves, and the state beside it."""
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        (checkpoint / "deepspeed").mkdir(parents=True, exist_ok=True)
        (checkpoint / "deepspeed" / name).write_bytes(name.encode() * 100)
    torch.save({"ranks": 1, "stage": 2, "step": 1, "files": digests(checkpoint / "deepspeed"), **more},
               checkpoint / "trainer.pt")
    return checkpoint


def flip(file):
    file.write_bytes(b"!" + file.read_bytes()[1:])


@pytest.mark.parametrize(("damage", "name"), [
    (flip, "mp_rank_00_model_states.pt"), (lambda file: file.write_bytes(file.read_bytes()[:-1]), "zero_pp_rank_0_mp"),
    (lambda file: file.unlink(), "zero_pp_rank_0_mp"), (lambda file: file.rename(f"{file}.old"), "zero_pp_rank_0_mp"),
    (lambda file: file.with_name("zero_pp_rank_9.pt").touch(), "zero_pp_rank_9.pt"),
])
def test_deepspeed_reads_only_what_it_has_written(damage, name, tmp_path):
    """It unpickles, whatever that runs: so nothing else gets as far."""
    checkpoint = left_by_a_run(tmp_path / "run" / "checkpoint-4")
    must_be_ours(checkpoint)
    damage(next((checkpoint / "deepspeed").glob(f"{name}*"), checkpoint / "deepspeed" / "none"))
    said = f"deepspeed/{name}.*: not what this run left there; remove {checkpoint}, and --resume begins anew"
    with pytest.raises(click.UsageError, match=said):
        must_be_ours(checkpoint)


@pytest.mark.parametrize("files", [None, {}, 3])
def test_deepspeed_reads_nothing_that_nobody_answers_for(files, tmp_path):
    with pytest.raises(click.UsageError, match="deepspeed.*: not what this run left there; remove"):
        must_be_ours(left_by_a_run(tmp_path / "checkpoint-4", files=files))
