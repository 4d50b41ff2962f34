"""What DeepSpeed keeps, measured: `torchrun ... memory_ranks.py ZERO OFFLOAD DTYPE FOLDER`; rank 0 prints JSON.

kept   bytes of all tensors of a process after the second step's last pass: on CPUs the device's and the host's together
step   the most bytes that exist at once in the optimizer's step after it
"""

import gc
import json
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignlib import ranks
from alignlib.models import load
from alignlib.training import zero
from alignlib.training.recipe import Recipe
from helpers import tiny

CONFIG = LlamaConfig(vocab_size=300, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
                     tie_word_embeddings=True)


def living() -> int:
    """Bytes of the storages behind all tensors there are; the fake ones that a compiler leaves behind have none."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type != "meta":
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def allocated(work) -> int:
    """The most bytes that `work` has allocated at once, over what there was."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(recipe: Recipe) -> dict[str, int]:
    path = f"{recipe.output}/given"
    ranks.share(lambda: tiny.save(LlamaForCausalLM(CONFIG), path))
    policy = load.load_policy(path, "cpu", recipe.dtype, train=True)
    place = zero.engine_for(policy, recipe, 4)
    batch = policy.pack([tiny.example(2, 6)])
    for _ in range(2):
        for last in (False, True):
            place.backward(place.ask(lambda: -policy.token_logps(batch).sum()), last)
        kept = living()
        step = kept + allocated(place.step)
    return {"kept": kept, "step": step}


if __name__ == "__main__":
    stage, offload, dtype, folder = sys.argv[1:]
    recipe = tiny.recipe(folder, zero=int(stage), offload=offload, dtype=dtype)
    with zero.distributed(recipe):
        bytes_held = measure(recipe)
    if ranks.first():
        print(json.dumps(bytes_held))
    ranks.leave(0)  # as every rank does: gloo's threads now and then abort Python's finalization
