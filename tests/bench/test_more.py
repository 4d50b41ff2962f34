"""al-train-rm --more beside MultiTask on the very same steps, and plain training; the aim: under 1.1 times MultiTask.

Steps of the three ways in turns, in one process, on one model whose learning rate is 0: medians, and their ratios.
"""

import statistics
import time

import pytest
import torch
import transformers

from al_train_rm.more import Balanced, More
from al_train_rm.ranking import Ranking
from alignlib.models import load
from alignlib.training import engine, passes
from alignlib.training.batches import Batches
from helpers import tiny

DOMAINS, BATCH, PROMPT, COMPLETION = 5, 20, 128, 64
ROUNDS, WARM = 8, 2


@pytest.mark.parametrize("hidden, layers, millions", [(256, 6, 5), (512, 8, 25)])
def test_weighing_domains_costs_little(hidden, layers, millions, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=8, num_labels=1,
        intermediate_size=hidden * 21 // 8, max_position_embeddings=512, pad_token_id=1)
    torch.manual_seed(0)
    core = transformers.LlamaForSequenceClassification(config)
    load.remove_dropout(core)
    reward = load.RewardModel(core, tiny.tokenizer(), train=True)
    domain = [i % DOMAINS for i in range(4 * BATCH)]
    examples = [tiny.example(PROMPT, COMPLETION, COMPLETION, seed=i, rewards=[1.0, 0.0], domain=[number] * 2)
                for i, number in enumerate(domain)]
    names = [f"d{number}" for number in range(DOMAINS)]
    ways = {"plain": Ranking(), "MultiTask": More(names=names, no_reweight=True), "MORE": More(names=names)}
    recipe = tiny.recipe(tmp_path, batch_size=BATCH, lr=0.0)
    place = engine.PlainEngine(reward, recipe, ROUNDS * len(ways))
    groups = tuple(tuple(i for i, whose in enumerate(domain) if whose == number) for number in range(DOMAINS))
    order, seconds = Balanced(groups, BATCH // DOMAINS * ROUNDS), {name: [] for name in ways}
    batches = Batches(order, recipe)
    for step in range(ROUNDS):
        for name, objective in ways.items():
            started = time.perf_counter()
            passes.train_step(batches.at(step), reward, examples, objective, recipe, place)
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times[WARM:]) for name, times in seconds.items()}
    print(f"\n{millions}M, {DOMAINS} domains, {BATCH} records of {PROMPT} + 2 * {COMPLETION} tokens a step: MultiTask "
          f"{median['MultiTask']:.2f} s; MORE {median['MORE'] / median['MultiTask']:.3f} times that, plain training "
          f"{median['plain'] / median['MultiTask']:.3f}")
    assert median["MORE"] < 1.1 * median["MultiTask"]
