"""The experiments' Makefiles, asked what they would do from the beginning (`make -n -B`)."""

import json
import os
import re
import subprocess

import pytest

from helpers import forks
from helpers.process import ROOT, environment

pytestmark = pytest.mark.slow


def planned(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "-n", "-B", *args], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["hh-exo", "tldr-exo", "imdb-exo"])
@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=someone/some-model")])
def test_every_experiment_has_the_whole_chain(name, scale):
    part = "-helpful-base" if name == "hh-exo" else ""
    run = f"runs/{name}-paper-some-model{part}" if scale else f"runs/{name}"
    done = planned(f"{run}/report/table.md", *scale)
    assert done.returncode == 0, done.stderr
    for method in ("exo-pref", "exo-rw", "dpo-pref", "dpo-rw"):
        assert f"--loss {method}" in done.stdout
    for step in ("al-sft", "al-train-rm", "al-sample", "al-score", "al-pref2rw", "report.sh"):
        assert step in done.stdout
    assert ("al-data new-model" in done.stdout) == (not scale)
    assert ("--lr 1e-6" in done.stdout) == bool(scale)  # the paper's
    asked = [command for command in done.stdout.replace("\\\n", " ").splitlines()
             if re.search(r"al-(sft|train-\w+|sample) |al-score runs|figures\.sh", command)]
    dtype = "auto" if scale else "fp32"  # the tables of the toy world are the same on any CPU
    assert len(asked) >= 13 and all(f"--dtype {dtype} " in command for command in asked)


@pytest.mark.parametrize("name", ["hh-args", "shp-args"])
@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=someone/some-model")])
def test_ways_of_decoding_are_compared_one_after_the_other(name, scale):
    part = "-helpful-base" if name == "hh-args" else ""
    run = f"runs/{name}-paper-some-model{part}" if scale else f"runs/{name}"
    done = planned(f"{run}/report/table.md", *scale)
    assert done.returncode == 0, done.stderr
    for step in ("al-data", "al-sft", "al-train-rm", "decode.sh"):
        assert step in done.stdout
    assert ("ORACLE='toy:" in done.stdout) == (not scale)
    assert ("WEIGHTS='0.5 1 1.5 2'" in done.stdout) == bool(scale)  # the paper's
    for size in ("", "half/"):  # reward models that are made to be asked on the way
        for kind, how in (("prefixes", "--prefixes 4"), ("vocabulary", "--head vocabulary"),
                          ("next-token", f"--loss next-token --beta {0.05 if scale else 0.2}")):
            (made,) = [command for command in done.stdout.replace("\\\n", " ").splitlines()
                       if f"-o {run}/{size}rm-{kind} " in command]
            assert f"al-train-rm {run}/{size}sft {run}/train.jsonl" in made and how in made


@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=someone/some-model")])
def test_rounds_learn_from_the_policy_before_them(scale):
    run = "runs/hh-online-paper-some-model-helpful-base" if scale else "runs/hh-online"
    done = planned(f"{run}/report/table.md", "ROUNDS=2", *scale)
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", " ").splitlines()
    for loss in ("exo-rw", "dpo-rw"):
        folder = f"{run}/online-{loss}"
        for before, number in ((f"{run}/sft", 1), (f"{folder}/round-1", 2)):
            made = f"{folder}/round-{number}"
            assert any(f" al-sample {before} {made}.samples.jsonl.prompts -n 4 " in command and
                       f" --seed {number} " in command for command in commands)
            learns = next(command for command in commands if f" -o {made} " in command)
            assert f"--loss {loss} " in learns and f" {before} {made}.rw.jsonl --ref {run}/sft " in learns
    judge = f"{run}/rm" if scale else "toy:overall"
    for method in ("ppo", "rloo", "grpo"):
        (learns,) = [command for command in commands
                     if f" al-train-ppo {run}/sft --method {method} --reward {judge} -n 4 " in command]
        assert f" {run}/samples.jsonl.prompts -o {run}/{method} " in learns
        assert ("--critic-lr" in learns) == (bool(scale) and method == "ppo")  # the others have no critic


ALT = {"tldr-alt-rm": "rm", "tldr-quark": "quark", "tldr-alt-lmu": "lmu", "hh-alt-lmc": "lmc", "hh-steerlm": "steerlm",
       "rtp-alt": "rm"}


@pytest.mark.parametrize("name", ALT)
@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=m", "JUDGE=j", "CLASSIFIER=c", "WRITING=w")])
def test_iterations_follow_each_other(name, scale):
    run = f"runs/{name}-paper-m" if scale else f"runs/{name}"
    run += "-helpful-base" if scale and name.startswith("hh") else ""
    done = planned(f"{run}/report/table.md", "ITERATIONS=3", *scale)
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", " ").splitlines()
    sampled = [command for command in commands if command.startswith("al-sample")]
    learnt = [command for command in commands if command.startswith("al-train-alt") and "--emit" not in command]
    under = "--condition exemplars" if name == "tldr-alt-lmu" else "--condition best"
    for i, before in enumerate(("sft", "iteration-1", "iteration-2")):
        assert f"al-sample {run}/{before} " in sampled[i] and (under in sampled[i]) == (i > 0)
        assert f"al-train-alt {run}/{before} " in learnt[i] and f"-o {run}/iteration-{i + 1} " in learnt[i]
        assert f"--mode {ALT[name]} " in learnt[i] and f"--seed {i + 1} " in learnt[i]
        assert (f"--ref {run}/sft " in learnt[i]) == (not name.startswith("hh"))  # no KL there
        assert (f"--pool {run}/{before}/pool.jsonl" in learnt[i]) == (i > 0)
    assert len(sampled) == len(learnt) == 3
    judged = ALT[name] in ("lmc", "lmu", "steerlm")
    assert done.stdout.count(f"al-label-ai --mode {ALT[name]} ") == 3 * judged
    assert ("examples/judge.sh" in done.stdout) == (judged and not scale)
    trained = [command for command in commands if command.startswith(f"al-train-ppo {run}/sft --method ppo ")]
    rollouts = [int(command.split(" --steps ")[1]) for command in trained]
    as_many = [9216, 46080] if scale else [140, 703]
    assert rollouts == (as_many if name in ("tldr-alt-rm", "tldr-quark") else [])
    assert done.stdout.count("alt.sh validate") == 4 + len(trained) and "alt.sh report 3" in done.stdout
    assert ("al-score c --label toxic" in done.stdout) == (bool(scale) and name == "rtp-alt")


@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=m", "JUDGE=j", "BASE_URL=http://u/v1")])
@pytest.mark.parametrize("against", ["samples", "teacher"])
def test_ai_feedback_is_asked_for_on_the_rest_of_the_prompts(scale, against):
    run = f"runs/rlaif{'-paper-m' if scale else ''}-{against}"
    done = planned(f"{run}/report/table.md", "SHARES=20", f"AGAINST={against}", *scale)
    assert done.returncode == 0, done.stderr
    commands = [command.strip() for command in done.stdout.replace("\\\n", " ").splitlines()]
    for teacher in ("chatgpt", "gpt4") if scale else ("weak", "strong"):
        made = f"{run}/{teacher}-20"
        assert any(command.startswith(f"al-sft {'m' if scale else run + '/pretrained'} {made}-sft.jsonl ")
                   for command in commands)
        samples = next(command for command in commands if f"{made}-samples.jsonl.prompts -n" in command)
        assert f"al-sample {made}-sft " in samples and ("-n 1 " in samples) == (against == "teacher")
        asked = next(command for command in commands if f"al-label-ai --judge {'j' if scale else 'overall'} "
                     f"--one-order --ties drop {made}-samples.jsonl" in command)
        assert asked.startswith("OPENAI_BASE_URL=http://u/v1 " if scale else "bash examples/judge.sh ")
        assert (f"--against {made}-samples.jsonl.prompts" in asked) == (against == "teacher")
        assert any(command.startswith(f"al-train-exo {made}-sft {made}-pairs.jsonl ") and "--loss dpo-pref" in command
                   and f"--beta-pi {0.05 if scale else 0.2} " in command for command in commands)
    assert any(f"{run}/answers.jsonl --against {run}/test.jsonl" in command and "--one-order" not in command
               for command in commands)
    assert done.stdout.count(" --max-chars 8000 --max-words 2000 | ") == (2 if scale else 0)  # what a judge can take in


@pytest.mark.parametrize("scale", [(), ("SCALE=paper", "MODEL=m", "JUDGE=j"), ("DATA={0}/help {0}/harm",)])
def test_reward_models_of_several_domains(scale, tmp_path):
    for folder in ("help", "harm"):
        for part in ("train", "test"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"pairs.{part}.jsonl").touch()
    kind = scale[0][:4] if scale else "toy"
    run = {"toy": "runs/hh-more", "SCAL": "runs/hh-more-paper-m", "DATA": "runs/hh-more-help-harm"}[kind]
    done = planned(f"{run}/report/table.md", *(word.format(tmp_path) for word in scale))
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", " ").splitlines()
    domains = {"toy": ["helpful", "harmless", "polite", "concise"], "DATA": ["help", "harm"],
               "SCAL": ["helpful", "harmless", "oasst1", "webgpt", "summarisation"]}[kind]
    taught = [re.search("-o (\\S+)", command)[1] for command in commands if command.startswith("al-train-rm")]
    assert taught == [f"{run}/rm-{name}" for name in (*domains, "multitask", "more")]
    more, = (command for command in commands if f"-o {run}/rm-more " in command)
    many, = (command for command in commands if f"-o {run}/rm-multitask " in command)
    assert many.replace(" --no-reweight", "").replace("rm-multitask", "rm-more").split() == more.split() != many.split()
    resampled, batch = (int(re.findall(rf"{option} ([0-9]+)", more)[-1]) for option in ("--resample", "--batch-size"))
    assert resampled == {"toy": 1200, "DATA": 2000, "SCAL": 40000}[kind] and batch % len(domains) == 0
    questions = [re.search("--question (\\w+)", command)[1] for command in commands if "al-label-ai" in command]
    assert questions == {"toy": ["general", "helpful", "harmless"], "SCAL": ["helpful", "harmless"], "DATA": []}[kind]
    sampled = [command for command in commands if " --to sft" in command]
    assert len(sampled) == (len(taught) if questions else 0)


def test_figures_of_a_policy_that_was_trained_anew_are_new(tmp_path):
    """And those that are there already stay. The commands are stand-ins, that copy the policy's name."""
    (tmp_path / "bin").mkdir()
    for name in ("al-sample", "al-score", "al-eval"):
        command = tmp_path / "bin" / name
        command.write_text('#!/bin/bash\nwhile [ $# -gt 0 ] && [ "$1" != -o ]; do shift; done\n'
                           f'[ $# = 0 ] && exec cat "$RUN/p.work/drawn.jsonl"\necho {name} >> "$RUN/asked"\n'
                           'cp "$RUN/p/run.json" "$2"\n')
        command.chmod(0o755)
    (tmp_path / "p").mkdir()
    (tmp_path / "test.jsonl").touch()
    os.utime(tmp_path / "test.jsonl", (0, 0))

    def validated(policy, time):
        (tmp_path / "p" / "run.json").write_text(policy)
        os.utime(tmp_path / "p" / "run.json", (time, time))
        (tmp_path / "asked").write_text("")
        empty = dict.fromkeys(("COMMON", "LENGTH", "DRAWN", "DRAWS", "ALSO", "TOXIC", "FEEDBACKS"), "")
        subprocess.run(["bash", "examples/alt.sh", "validate", "p"], cwd=ROOT, check=True, env={
            **os.environ, **empty, "RUN": str(tmp_path), "SCORES": "al-score",
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"})
        return set((tmp_path / "p.rows").read_text().split()), (tmp_path / "asked").read_text().count("al-")

    assert validated("first\n", 0) == ({"first"}, 5) and validated("first\n", 0) == ({"first"}, 0)
    assert validated("second\n", 2**32) == ({"second"}, 5)  # later than all that is made now


@pytest.mark.parametrize(("args", "said"), [
    (["hh-alt-lmc", "SCALE=paper", "MODEL=m"], "JUDGE=name: who judges"),
    (["rlaif", "SCALE=paper", "MODEL=m"], "JUDGE=name: who compares"),
    (["rtp-alt", "SCALE=paper", "MODEL=m"], "CLASSIFIER=name: what classifies texts"),
    (["hh-exo", "SCALE=papr"], "SCALE=papr: it is smoke, toy, real or paper"),
    (["hh-exo", "SCALE=real"], "SCALE=real wants MODEL=folder, a chat model"),
    (["imdb-exo", "SCALE=real", "MODEL=m"], "SCALE=real is of hh-exo hh-args tldr-alt-rm"),
    (["hh-exo", "SCALE=smoke", f"DATA={ROOT / 'examples'}"], "SCALE=smoke is of the toy world"),
    (["hh-more", f"DATA={ROOT / 'examples'} {ROOT / 'lib'}/../examples"], "two folders of one name"),
    (["hh-exo", "DATA=/nonexistent"], "DATA=/nonexistent: no such folder"),
    (["imdb-exo", f"DATA={ROOT / 'examples'}"], "examples has no "),
])
def test_a_mistake_is_named(args, said):
    done = planned(*args)
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.parametrize("name", ["hh-exo", "hh-args"])
def test_what_judges_a_real_model_sees_no_pair_that_others_learn_from(name, tmp_path):
    run = f"runs/{name}-real-smollm2-{tmp_path.name}"
    for part in ("train", "test"):
        rows = [{"prompt": f"{part} {i}", "chosen": "a" * 10 * i, "rejected": "b"} for i in range(100)]
        (tmp_path / f"pairs.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = planned(f"{run}/report/table.md", "SCALE=real", "MODEL=smollm2", f"DATA={tmp_path}", "SETUP=")
    assert done.returncode == 0, done.stderr
    commands = done.stdout.replace("\\\n", " ").splitlines()
    assert any(command.strip() == "al-data model smollm2 smollm2" for command in commands)
    assert any(f"al-train-rm smollm2 {run}/gold.jsonl -o {run}/gold " in command for command in commands)
    assert f"ORACLE='{run}/gold --dtype auto " in done.stdout
    environ = {**environment(), "PATH": f"{forks.folder() / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    seen = {}
    for part in ("train", "gold", "test"):
        made = next(command for command in commands if f"> {run}/{part}.jsonl.part" in command)
        lines = subprocess.run(["bash", "-c", made.split(" > ")[0]], env=environ, capture_output=True,
                               text=True, check=True).stdout.splitlines()
        assert len(lines) > 30 and max(map(len, lines)) < 1000  # the short ones
        seen[part] = set(lines)
    assert not seen["train"] & seen["gold"]


@pytest.mark.parametrize("name", ["hh-exo", "hh-args", "rlaif"])
def test_your_own_pairs_are_enough(name, tmp_path):
    for part in ("train", "test"):
        (tmp_path / f"pairs.{part}.jsonl").touch()
    done = planned(f"runs/{name}-{tmp_path.name}/report/table.md", f"DATA={tmp_path}", "JUDGE=j")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"--from {tmp_path}/pairs.") >= 2 and "--split" not in done.stdout  # all of each file


@pytest.mark.slow
def test_other_data_other_folder():
    folders = {next(line for line in planned("hh-exo", *args).stdout.splitlines() if "report/table.md" in line)
               for args in ([], ["REWARDS=learned"], ["SCALE=paper", "MODEL=m"], ["SCALE=paper", "MODEL=m", "PART=p"],
                         ["DTYPE=bf16"])}
    assert len(folders) == 5
