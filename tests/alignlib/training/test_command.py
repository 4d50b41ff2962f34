"""The options of every training command, by a small one of our own that is called in this process."""

import pytest

from alignlib.cli import options
from alignlib.training.command import training_options
from alignlib.training.session import Session
from helpers import tiny
from helpers.outcome import outcome


def session_of(capfd, *args: str, **defaults) -> Session:
    """What the command's body gets; its own option is --beta."""
    sessions = []

    @options.command(reads=("prompt",), name="al-test")
    @training_options(**{"lr": 0.5, "batch_size": 3, **defaults})
    @options.click.option("--beta", default=1.0)
    def main(session, beta):
        sessions.append((session, beta))

    assert outcome(capfd, lambda: main.main([*args], "al-test")) == (0, "")
    ((session, beta),) = sessions
    assert beta == 1.0
    return session


def refusal(capfd, *args: str) -> str:
    @options.command(reads=("prompt",), name="al-test")
    @training_options(lr=0.5, batch_size=3)
    def main(session):
        raise AssertionError("it began")

    code, line = outcome(capfd, lambda: main.main([*args], "al-test"))
    assert code == 2 and line.count("\n") == 1
    return line


def test_the_body_gets_its_own_options_and_one_session(capfd, tmp_path):
    (tmp_path / "a.jsonl").touch()
    session = session_of(capfd, "policy", str(tmp_path / "a.jsonl"), "-o", "out", "--launch", "2", "--plan")
    assert (session.model, session.files, session.processes, session.plan) == (
        "policy", (str(tmp_path / "a.jsonl"),), 2, True)
    assert session.recipe.output == "out"


def test_a_command_says_its_own_defaults(capfd):
    recipe = session_of(capfd, "policy", epochs=4, optimizer="rmsprop").recipe
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.optimizer) == (0.5, 3, 4, "rmsprop")
    assert session_of(capfd, "policy").recipe.epochs == 1


def test_every_field_of_the_recipe_can_be_given(capfd, tmp_path):
    """And none of it is lost on the way: each differs from its default."""
    (tmp_path / "eval").touch(), (tmp_path / "ds.json").touch()
    wanted = tiny.recipe(
        "out", resume=True, on_error="skip", batch_size=7, pack_tokens=99, epochs=2.5, steps=8, lr=0.25,
        optimizer="rmsprop", betas=(0.5, 0.75), weight_decay=0.125, schedule="linear", warmup=3.0, clip=2.0,
        max_length=50, max_prompt=20, max_completion=30, keep_prompt="start", on_long="skip",
        template="{{ a }}", template_args=(("x", 1),), control_tokens=True, dtype="bf16", device="cuda:1",
        gradient_checkpointing=True, compile=True, zero=3, offload="all", deepspeed=str(tmp_path / "ds.json"), lora=4,
        lora_alpha=3, lora_dropout=0.5, lora_targets="q_proj", lora_lr=0.1, load_4bit=True, save_adapter=True,
        save_dtype="fp16", eval=str(tmp_path / "eval"), eval_every=6, save_every=0.5, keep=0, seed=11)
    args = ["policy"]
    (tmp_path / "chat.jinja").write_text(wanted.template)
    given = {**vars(wanted), "template": tmp_path / "chat.jinja"}
    args += ["--template-arg", "x=1"]
    del given["template_args"]
    for name, value in given.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        args += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
    plain, recipe = session_of(capfd, "policy").recipe, session_of(capfd, *args).recipe
    assert recipe == wanted
    assert [name for name in vars(wanted) if getattr(plain, name) == getattr(wanted, name)] == []


@pytest.mark.parametrize(("args", "message"), [
    (("--betas", "0.9"), "0.9: expected two numbers with a comma between"),
    (("--betas", "0.9,x"), "0.9,x: expected two numbers with a comma between"),
    (("--betas", "0.9,1"), "0.9,1: both are at least 0 and below 1"),
    (("--epochs", "0"), "--epochs"),
    (("--lr", "nan"), "--lr"),
    (("--zero", "4"), "--zero"),
    (("--batch-size", "0"), "--batch-size"),
    (("none.jsonl",), "none.jsonl: no such file"),
])
def test_what_they_may_not_be(args, message, capfd):
    assert message in refusal(capfd, "policy", *args)
