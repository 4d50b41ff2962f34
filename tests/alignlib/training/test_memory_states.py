"""What stays in memory, worked by hand."""

import transformers

from alignlib.training.memory_states import Setting, Weights, cache_bytes, peak, states, with_along
from helpers import tiny


def test_a_thousand_weights_by_hand():
    weights = Weights(total=1000, trained=1000, largest=100)
    alone = states(weights, Setting(1, None, "none", narrow=False))
    assert alone == {"weights": 4000, "gradients": 4000, "optimizer": 8000, "buffers": 0, "step": 4000,
                     "loading": 4000, "host": 4000}
    cut = {zero: states(weights, Setting(4, zero, "none", narrow=True)) for zero in (1, 2, 3)}
    assert [cut[zero]["weights"] for zero in cut] == [2000, 2000, 500]
    assert [cut[zero]["gradients"] for zero in cut] == [2000, 500, 500]
    assert {cut[zero]["optimizer"] for zero in cut} == {(4 + 8) * 250}  # a float32 copy and two moments, a quarter
    assert [cut[zero]["buffers"] for zero in cut] == [4000, 4000, 4000]
    away = states(weights, Setting(4, 2, "optimizer", narrow=True))
    assert (away["optimizer"], away["gradients"], away["step"]) == (0, 0, 0)
    # Copy, moments and gradients in float32, two 16-bit sums of gradients, two temporaries of the step.
    assert away["host"] == 250 * (4 + 8 + 4 + 2 * 2 + 2 * 4)
    all_away = states(weights, Setting(4, 3, "all", narrow=True))
    assert all_away["weights"] == 0 and all_away["host"] == 250 * (4 + 8 + 4 + 2 + 2 * 4 + 2)


def test_adapters_need_little_but_the_weights():
    weights = Weights(total=1000, trained=10, largest=100)
    found = states(weights, Setting(1, None, "none", narrow=False))
    assert (found["weights"], found["gradients"], found["optimizer"]) == (4000, 40, 80)
    rms = states(weights, Setting(1, None, "none", narrow=False, moments=4))
    assert rms["optimizer"] == 40


def test_the_peak_is_a_pass_or_a_step_or_the_loading():
    items = {"weights": 10, "optimizer": 20, "gradients": 5, "buffers": 3, "activations": 7, "step": 4, "loading": 40}
    assert peak(items) == 10 + 20 + 5 + 3 + 7
    assert peak({**items, "step": 100}) == 10 + 20 + 5 + 100
    assert peak({**items, "loading": 50}) == 50


def test_models_along_take_their_own():
    """One that trains all its states, and passes in turn; one that is asked its weights alone."""
    alone = Setting(1, None, "none", narrow=False)
    items = {**states(Weights(1000, 1000, 100), alone), "activations": 70.0}
    critic = with_along(items, Weights(500, 500, 100), 90.0, alone, True, 2)
    assert (critic["weights"], critic["optimizer"], critic["gradients"]) == (6000, 12000, 6000)
    assert (critic["step"], critic["loading"], critic["activations"]) == (4000, 6000, 90)
    judge = with_along(critic, Weights(300, 300, 100), 500.0, alone, False, 2)
    assert judge == {**critic, "weights": 6600}
    dealt = Setting(4, 3, "none", narrow=True)  # but for what is asked
    items = {**states(Weights(1000, 1000, 100), dealt), "activations": 70.0}
    assert with_along(items, Weights(300, 300, 100), 0.0, dealt, False, 2)["weights"] == 500 + 600


def test_caches_by_hand():
    """Llama 2 7B: keys and values of 32 layers of 4096 in 16 bits, half a megabyte a token; heads that are shared."""
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    assert cache_bytes(transformers.LlamaConfig(**shape), 1, 2) == 2 * 2 * 32 * 4096
    assert cache_bytes(transformers.LlamaConfig(**shape, num_key_value_heads=8), 100, 2) == 100 * 2 * 2 * 32 * 1024
    assert cache_bytes(tiny.config("gpt2"), 1, 4) == 2 * 4 * 2 * 32
