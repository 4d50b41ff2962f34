"""Every command that takes a model, with each form that a model has: it works, or one line says what would."""

import os
import shutil
from pathlib import Path

import pytest

from helpers import forks, gguf_files
from helpers.commands import TEMPLATE, folders, lines, one_line, rewarded, run

pytestmark = [pytest.mark.slow, pytest.mark.long]

ON_POLICY = ("-o", "OUT", "--steps", 1, "-n", 2, "--batch-size", 2, "-m", 2)
# What a command reads: MODEL is the form in question, POLICY and REWARD are folders, OUT is a new path.
POLICIES = [
    ("al-sample", "MODEL", "-m", 2),
    ("al-score", "MODEL", "--logps"),
    ("al-args", "MODEL", "REWARD", "-m", 2),
    ("al-label-ai", "--judge", "MODEL"),
    ("al-eval", "text", "--coherence", "MODEL"),
    ("al-sft", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-exo", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-exo", "POLICY", "--ref", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-rm", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-alt", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-ppo", "MODEL", *ON_POLICY, "--reward", "length"),
    ("al-train-ppo", "POLICY", *ON_POLICY, "--reward", "length", "--method", "grpo", "--ref", "MODEL"),
    ("al-sft", "MODEL", "--plan"),
    ("al-data", "model", "MODEL", "OUT"),
    ("al-data", "new-model", "OUT", "--from", "MODEL", "--layers", 1),
]
REWARDS = [("al-score", "MODEL"), ("al-args", "POLICY", "MODEL", "-m", 2), ("al-label-ai", "--judge-rm", "MODEL"),
           ("al-train-rm", "MODEL", "-o", "OUT", "--steps", 1),
           ("al-train-ppo", "POLICY", *ON_POLICY, "--reward", "MODEL")]  # which the critic begins from
RECORDS = [{**record, "chosen": record["completions"][0], "rejected": record["completions"][1]}
           for record in rewarded(2, 5)]  # al-train-alt sorts five into its classes
PAIRS = [{"prompt": record["prompt"], "completions": record["completions"][:2]} for record in RECORDS]


def outcome(command: tuple[object, ...], model: str | Path, venv: Path | None = None) -> str:
    """ "" where it worked; else what its one line says."""
    names = {"MODEL": model, "POLICY": folders().policy, "REWARD": folders().reward, "OUT": folders().new("out")}
    records = PAIRS if command[0] == "al-label-ai" else RECORDS
    done = run(*(names.get(str(word), word) for word in command), stdin=lines(*records), venv=venv)
    assert done.returncode in (0, 2), (command, done.stderr)
    return one_line(done.stderr) if done.returncode else ""


def works_everywhere(commands: list[tuple[object, ...]], model: str | Path, *but: tuple[str, str],
                     venv: Path | None = None) -> None:
    """but: the name of a command that refuses it, and what its line says."""
    for command in commands:
        said = outcome(command, model, venv)
        wanted = dict(but).get(str(command[0]), "")
        assert wanted in said if wanted else not said, (command, said)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """A folder with a template, whose context is long enough for a judge's question."""
    copy = folders().saying(folders().policy, max_position_embeddings=2048)
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    return copy


@pytest.fixture
def adapter(policy, tmp_path) -> Path:
    import peft
    from transformers import AutoModelForCausalLM

    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(policy),
                                peft.LoraConfig(r=2, target_modules="all-linear"))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_folder(policy):
    works_everywhere(POLICIES, policy)
    works_everywhere(REWARDS, folders().reward)


def test_an_adapter(adapter):
    """Of a policy."""
    works_everywhere(POLICIES, adapter, ("al-eval", "an adapter; texts are made vectors by a whole encoder"))


def test_a_gguf_file(policy, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = gguf_files.write(tmp_path / "x.gguf", AutoModelForCausalLM.from_pretrained(policy),
                            words=AutoTokenizer.from_pretrained(policy))
    works_everywhere(POLICIES, file)
    for command in REWARDS[:3]:
        assert "a policy or a bare model; a reward model (sequence classifier) is needed" in outcome(command, file)
    assert f"{tmp_path}: not a model folder (it has no config.json); {file} would do" in outcome(POLICIES[0], tmp_path)
    said = outcome(("al-sample", "MODEL", "--backend", "vllm"), file)
    assert "al-data model" in said or "needs vLLM" in said


@pytest.mark.parametrize("form", ["a file beside config.json", "a folder", "apart"])
def test_weights_that_torch_saved(policy, tmp_path, form):
    import torch
    from safetensors.torch import load_file

    for commands, folder in ((POLICIES, policy), (REWARDS, Path(folders().reward))):
        copy = folders().without(str(folder), "model.safetensors")
        file = (tmp_path if form == "apart" else copy) / "pytorch_model.bin"
        torch.save(load_file(folder / "model.safetensors"), file)
        model = {"a folder": copy, "apart": f"{file}@{folder}"}.get(form, file)
        works_everywhere(commands if form == "apart" else commands[:2], model)
    if form == "apart":
        assert f"{file}: weights alone; name the model that they began as" in outcome(REWARDS[0], file)


def test_a_name_on_the_hub_without_a_network(policy, tmp_path):
    """What is in the cache works; what is not is named."""
    hub = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(policy, hub / "snapshots" / ("0" * 40))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("0" * 40)
    venv = forks.folder(HF_HUB_OFFLINE="1", HF_HOME=os.fspath(tmp_path))
    for command in POLICIES:
        if "--judge" not in command:  # there a name is a server's
            assert outcome(command, "someone/tiny", venv) == "", command
            said = outcome(command, "someone/other", venv)
            assert "someone/other: no model folder, nor to be had from the Hub" in said, (command, said)


def test_what_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    for wrong, message in ((tmp_path, "not a model folder (it has no config.json)"),
                           (tmp_path / "notes.txt", "notes.txt: a file that is no model")):
        for command in (*POLICIES, *REWARDS):
            if "--judge" not in command or wrong == tmp_path:
                assert message in outcome(command, wrong), command
