"""Flat packs: many groups in one row for flex_attention, the same numbers as plain rows.

On the CPU flex_attention has no way back; gradients are tested with a stand-in that reads the same masks densely.
"""

import random
import re

import peft
import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from al_train_exo.reference import add_ref_logps
from alignlib.models import attention, load, logps, packs
from alignlib.models.example import Example
from alignlib.models.packs import BLOCK, pack, plan
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.probes import packs_flat
from alignlib.models.windows import FULL, Window
from alignlib.training import loop
from alignlib.training.run_folder import Run
from helpers import tiny
from helpers.plain import dense, gradients, plain_logps, same_gradients

pytestmark = pytest.mark.slow

A, B, C, D, E, F, G = range(1, 8)
FAMILIES = ("llama", "gpt_neox")
GROUPS = {1: [(5, 3), (1, 140), (30, 7), (2, 0)], 2: [(9, 4, 7), (150, 20, 33), (3, 0, 6), (40, 1, 1)],
          4: [(17, 1, 12, 3, 8), (60, 2, 0, 90, 41), (1, 6, 2, 5, 9)]}  # by K: prompt, then completions


def flat(model, **more):
    """A Policy or RewardModel whose packs are flat, as on a GPU."""
    wrapped = (RewardModel if hasattr(model, "score") else Policy)(model, tiny.tokenizer(), **more)
    wrapped.flat = attention.use_flex(wrapped.core)
    assert wrapped.shared and wrapped.flat and wrapped.core.config._attn_implementation == attention.FLEX
    return wrapped




@pytest.fixture
def with_gradients(monkeypatch):
    monkeypatch.setattr(attention, "kernel", lambda device: dense)


# -- layout -----------------------------------------------------------------------------------------------------


def test_the_row_drawn_in_the_docstring():
    batch = pack([Example([A, B], [[C, D], [E]]), Example([F], [[G], []])], flat=True)
    assert batch.ids.shape == (1, 2 * BLOCK) and batch.ids[0, :8].tolist() == [A, B, C, D, E, F, G, 0]
    assert batch.positions[0, :7].tolist() == [0, 1, 2, 3, 2, 0, 1]
    seen = [[key for key in range(8) if batch.mask.mask_mod(0, 0, torch.tensor(query), torch.tensor(key))]
            for query in range(8)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [5], [5, 6], [7]]  # padding sees padding
    assert batch.sources.tolist() == [1, 2, 1, 5] and batch.targets.tolist() == [C, D, E, G]
    assert batch.owner.tolist() == [0, 0, 1, 2] and batch.last.tolist() == [3, 4, 6, 5]
    assert batch.counts().tolist() == [[2, 1], [1, 0]] and batch.tokens == 7 and batch.shape == (2, 2)


def test_blocks_that_nobody_sees_are_left_out():
    """Groups of 300 tokens in a row of 1280: block by block, [query, key], what flex_attention computes."""
    batch = pack([tiny.example(100, 100, 100, seed=i) for i in range(4)], flat=True)
    blocks = batch.mask.to_dense()[0, 0].int().tolist()
    assert blocks == [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                      [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                      [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],  # 256..383: the end of the first group, the second's prompt
                      [0, 0, 1, 1, 0, 0, 0, 0, 0, 0],
                      [0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
                      [0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
                      [0, 0, 0, 0, 1, 1, 1, 0, 0, 0],
                      [0, 0, 0, 0, 1, 1, 1, 1, 0, 0],  # 896..1023: the end of the third, the fourth's prompt
                      [0, 0, 0, 0, 0, 0, 0, 1, 1, 0],
                      [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    blocks = pack([tiny.example(128, 256, 256)], flat=True).mask.to_dense()[0, 0].int().tolist()
    assert blocks == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]


@pytest.mark.parametrize("window", [None, Window(100), Window(150, chunked=True), Window(400)])
@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_those_of_the_whole_mask(seed, window):
    """Which of them are computed, and in which everybody sees all; a window's may be some more, but never fewer."""
    numbers = random.Random(seed)
    lengths, k = (0, 3, 128, 260, 400), numbers.choice([1, 2, 4])
    groups = [tiny.example(numbers.choice(lengths), *(numbers.choice(lengths) for _ in range(k)))
              for _ in range(numbers.randint(1, 5))]
    mask = pack(groups, flat=True, windows={FULL: window}).mask
    long, longest = mask.seq_lengths[0], max(len(g.prompt) + len(part) for g in groups for part in g.completions)
    wanted = create_block_mask(mask.mask_mod, None, None, long, long, device="cpu", BLOCK_SIZE=BLOCK)
    for side in ("kv", "q"):
        some, every = blocks(mask, side), blocks(mask, f"full_{side}")
        if window is None or window.size >= longest:
            assert (some, every) == (blocks(wanted, side), blocks(wanted, f"full_{side}"))
        else:
            assert some >= blocks(wanted, side) | blocks(wanted, f"full_{side}") and not every


def blocks(mask: BlockMask, name: str) -> set[tuple[int, int]]:
    """The pairs of blocks that it lists under that name: its "kv" or "q", or those without a question, "full_kv"."""
    counts, indices = (getattr(mask, f"{name}_{part}")[0, 0].tolist() for part in ("num_blocks", "indices"))
    return {(row, column) for row, count in enumerate(counts) for column in indices[row][:count]}


def test_without_a_prompt_nothing_predicts_the_first_token():
    batch = pack([Example([], [[A, B]]), Example([], [[C]])], flat=True)
    assert batch.sources.tolist() == [0] and batch.targets.tolist() == [B] and batch.last.tolist() == [1, 2]


def test_a_long_group_is_not_split(monkeypatch):
    monkeypatch.setattr(packs, "ROW_TOKENS", 5)
    batch = pack([Example([A, B], [[C, D], [E], [F, G]])], flat=True)
    assert batch.tokens == 7 and batch.ids[0, :7].tolist() == [A, B, C, D, E, F, G]


@pytest.mark.parametrize("tokens, long", [(1, 256), (256, 256), (257, 384), (1024, 1024), (1025, 1152)])
def test_rows_are_whole_blocks(tokens, long):
    assert pack([Example([A], [[B] * (tokens - 1)])], flat=True).ids.shape == (1, long)


@pytest.mark.parametrize("tokens", [1, 64, 500, 100_000])
def test_plan_counts_real_tokens(tokens):
    numbers = random.Random(tokens)
    widths = [numbers.choice([1, 2, 4]) for _ in range(60)]
    examples = [tiny.example(numbers.randint(1, 30), *(numbers.randint(0, 20) for _ in range(k))) for k in widths]
    dealt = plan(examples, range(60), tokens, flat=True)
    assert sorted(i for one in dealt for i in one) == list(range(60))
    for one in dealt:
        batch = pack([examples[i] for i in one], flat=True)
        assert batch.tokens == sum(examples[i].length for i in one)
        assert batch.tokens <= tokens or len(one) == 1
    for one, after in zip(dealt, dealt[1:], strict=False):  # a pack is full, or the next are wider
        full = sum(examples[i].length for i in (*one, after[0])) > tokens
        assert full or len(examples[one[0]].completions) < len(examples[after[0]].completions)
    assert len(dealt) <= len(plan(examples, range(60), tokens))  # padding is counted there


# -- through models, by flex_attention -------------------------------------------------------------------------------


@pytest.mark.parametrize("k", GROUPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_flat_packs_are_plain_rows(family, k, monkeypatch):
    monkeypatch.setattr(packs, "ROW_TOKENS", 150)  # some of the groups are longer
    policy, plain = flat(tiny.causal(family)), tiny.causal(family)
    examples = [tiny.example(*lengths) for lengths in GROUPS[k]]
    with torch.no_grad():
        wanted = torch.stack([plain_logps(plain, example) for example in examples])
        actual = policy.logps(policy.pack(examples))
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)
    with torch.inference_mode():  # as al-score asks
        torch.testing.assert_close(policy.logps(policy.pack(examples)), actual, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", ["mistral", "gemma3", "gemma2", "llama4"])
def test_windows_and_caps_in_flat_packs_are_plain_rows(family):
    """Texts of four windows and more; sinks need a GPU."""
    policy, plain = (tiny.causal(family, **tiny.windowed(family, 20)) for _ in range(2))
    policy = Policy(policy, tiny.tokenizer())
    policy.flat = packs_flat(policy)
    assert policy.flat and policy.core.config._attn_implementation == attention.FLEX
    examples = [tiny.example(*lengths) for lengths in GROUPS[4]]
    with torch.no_grad():
        wanted = torch.stack([plain_logps(plain, example) for example in examples])
        torch.testing.assert_close(policy.logps(policy.pack(examples)), wanted, rtol=1e-6, atol=0)


def test_a_window_that_flex_attention_does_not_heed_is_found_out(monkeypatch, capsys):
    policy, build = Policy(tiny.causal("gemma3", sliding_window=100), tiny.tokenizer()), packs._block_mask
    monkeypatch.setattr(packs, "_block_mask", lambda grid, window, device: build(grid, None, device))
    assert not packs_flat(policy)
    assert re.search("flex_attention differs by .*; using dense masks", capsys.readouterr().err)


def test_a_reward_model_reads_flat_packs_too():
    examples = [tiny.example(*lengths) for lengths in GROUPS[2]]
    with torch.no_grad():
        wanted = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
        wanted, reward = wanted.scores(wanted.pack(examples)), flat(tiny.classifier("llama"))
        torch.testing.assert_close(reward.scores(reward.pack(examples)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_weights_under_autocast(family):
    """Rotated queries and keys stay in float32 there, values do not: flex_attention wants one precision."""
    examples = [tiny.example(*lengths) for lengths in GROUPS[2]]
    policy, exact = flat(tiny.causal(family), autocast=torch.bfloat16), flat(tiny.causal(family))
    with torch.no_grad():
        actual, wanted = (model.logps(model.pack(examples)) for model in (policy, exact))
    torch.testing.assert_close(actual, wanted, rtol=0.02, atol=0.2)


def test_other_lengths_share_one_compiled_kernel():
    """The first length and then all others: two compilations, whatever the lengths and the groups in them."""
    lengths, compiler = [], torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    kernel = torch.compile(flex_attention, fullgraph=True, backend=compiler)  # as attention.kernel, but for its code
    numbers = torch.Generator().manual_seed(0)
    for count in (3, 1, 9, 4, 6, 2):
        batch = pack([tiny.example(90, 40, 60, seed=count + i) for i in range(count)], flat=True)
        lengths.append(batch.ids.shape[1])
        query = torch.randn(1, 4, lengths[-1], 16, generator=numbers)
        key = value = torch.randn(1, 2, lengths[-1], 16, generator=numbers)
        how = {"block_mask": batch.mask, "scale": 0.3, "enable_gqa": True}
        torch.testing.assert_close(kernel(query, key, value, **how), dense(query, key, value, **how))
    assert lengths == [640, 256, 1792, 768, 1152, 384] and compiler.frame_count == 2


def test_what_flex_attention_cannot_do_is_refused():
    block = pack([Example([A], [[B]])], flat=True).mask
    with pytest.raises(ValueError, match="dropout"):
        attention.block_masks(torch.nn.Module(), *torch.zeros(3, 1, 1, 256, 16), block, dropout=0.1)
    eager = tiny.causal("llama")
    eager.set_attn_implementation("eager")
    assert not attention.use_flex(eager) and eager.config._attn_implementation == "eager"


# -- the check on load -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_take_flat_packs_pass(family, capsys):
    policy = Policy(tiny.causal(family), tiny.tokenizer())
    assert packs_flat(policy) and policy.core.config._attn_implementation == attention.FLEX
    half = Policy(tiny.causal(family), tiny.tokenizer(), autocast=torch.bfloat16)
    assert packs_flat(half) and not capsys.readouterr().err


def test_a_model_that_looks_into_its_mask_keeps_dense_ones(capsys):
    policy = Policy(tiny.causal("gpt2"), tiny.tokenizer())
    assert policy.shared and not packs_flat(policy) and policy.core.config._attn_implementation == attention.NAME
    assert "flex_attention fails ('BlockMask' object has no attribute 'ndim'); using" in capsys.readouterr().err


def test_a_model_that_trains_must_pass_on_the_way_back_too(capsys):
    """Which flex_attention has none of on the CPU."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer(), train=True)
    assert not packs_flat(policy) and policy.core.config._attn_implementation == attention.NAME
    assert "flex_attention fails (FlexAttention does not support backward on CPU" in capsys.readouterr().err


def test_a_wrong_mask_or_gradient_is_found_out(monkeypatch, capsys):
    def deaf(query, key, value, *, block_mask, **how):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, **how)

    def cut(query, key, value, **how):
        return dense(query, key.detach(), value, **how)

    for kernel, good, bad in ((deaf, [], [False, True]), (cut, [False], [True]), (dense, [False, True], [])):
        monkeypatch.setattr(attention, "kernel", lambda device, kernel=kernel: kernel)
        for training in good + bad:
            policy = Policy(tiny.causal("llama"), tiny.tokenizer(), train=training)
            assert packs_flat(policy) == (training in good)
            error = capsys.readouterr().err
            assert ("using dense masks" in error) == (training in bad)


def test_a_model_in_an_adapter_passes_on_the_way_back(with_gradients, tmp_path, capsys):
    """peft has frozen all of the base; and of new adapters some weights are zero, through which no gradient goes."""
    peft.get_peft_model(tiny.causal("llama"), peft.LoraConfig(target_modules=["down_proj"])).save_pretrained(tmp_path)
    for kind in (Policy, RewardModel):
        base = tiny.causal("llama") if kind is Policy else tiny.classifier("llama")
        model = kind(peft.PeftModel.from_pretrained(base, tmp_path, is_trainable=True), tiny.tokenizer(), train=True)
        assert packs_flat(model) and not capsys.readouterr().err
        learnt = {name for name, weight in model.model.named_parameters() if weight.requires_grad}
        assert learnt and all(".lora_" in name for name in learnt)


def test_norms_without_weights_pass_too(with_gradients, capsys):
    assert packs_flat(Policy(tiny.causal("olmo"), tiny.tokenizer(), train=True)) and not capsys.readouterr().err


def test_the_cpu_keeps_its_strips():
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    assert not policy.flat and policy.core.config._attn_implementation == attention.NAME


# -- training, with the stand-in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_plain_rows(with_gradients, family, checkpointing, monkeypatch):
    monkeypatch.setattr(logps, "CHUNK", 7 * tiny.VOCABULARY)
    policy, plain = flat(tiny.causal(family).double()), tiny.causal(family).double()
    if checkpointing:
        load.remove_dropout(policy.core)
        policy.core.train().gradient_checkpointing_enable({"use_reentrant": False})
    examples = [tiny.example(*lengths) for lengths in GROUPS[4]]
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4)
    actual = policy.logps(policy.pack(examples))
    wanted = torch.stack([plain_logps(plain, example) for example in examples])
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)
    same_gradients(gradients(policy.core, (actual * weights).sum()), gradients(plain, (wanted * weights).sum()), 1e-6)


def test_the_loop_trains_flat_and_dense_to_the_same_weights(with_gradients, tmp_path):
    examples = tiny.stored(tiny.example(9 + i, 3 + i, 12 - i, seed=i, rewards=[1.0, 0.0]) for i in range(8))
    weights = []
    for way in ("flat", "dense"):
        policy = flat(tiny.causal("llama")) if way == "flat" else Policy(tiny.causal("llama"), tiny.tokenizer())
        recipe = tiny.recipe(tmp_path / way, batch_size=4, steps=3, pack_tokens=64, lr=1e-3)
        run = Run(recipe, {"command": "test"})
        run.reads(1)
        add_ref_logps(policy, examples, recipe, run, policy.logps)
        entry = loop.fit(policy, examples, tiny.contrast("dpo-pref"), recipe, run)
        weights.append((policy.core.state_dict(), entry["loss"]))
    (actual, loss), (wanted, other) = weights
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(other, rel=1e-4)
