"""Short training runs of tiny policies, for the tests of the loop and of the folders it leaves."""

import json

import torch
from transformers import AutoModelForCausalLM

from al_sft import Likelihood
from alignlib.models import load
from alignlib.training import loop
from alignlib.training.run_folder import Run
from helpers import tiny


def examples(count, *completions, **values):
    return [tiny.example(2 + 3 * i, *(n + i % 4 for n in completions or (5,)), seed=7, **values) for i in range(count)]


def fit(folder, *, model=None, data=None, objective=None, family="llama", resume=False, **changes):
    """Train a tiny policy on eight examples; returns it and its run."""
    fitted = {name: changes.pop(name) for name in ("held_out", "best") if name in changes}
    recipe = tiny.recipe(folder, resume=resume, **changes)
    run = Run(recipe, {"command": "test"})
    run.reads(1)
    policy = model or load.Policy(start(run, family), tiny.tokenizer())
    loop.fit(policy, data or examples(8), objective or Likelihood("token"), recipe, run, **fitted)
    return policy, run


def start(run, family):
    """What a command would load, without dropout: the newest checkpoint, or the model it was given."""
    if run.start("given") == "given":
        model = tiny.causal(family)
    else:
        model = AutoModelForCausalLM.from_pretrained(run.start("given"), attn_implementation="sdpa")
    load.remove_dropout(model)
    return model


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(actual, wanted, tolerance=0.0):
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
