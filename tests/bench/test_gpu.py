"""A 1.1B Llama on a GPU: training steps on flat packs, dense masks, padded rows and of TRL; its drawing of tokens.

Without a GPU all is skipped; test_bench_gpu.py takes the same steps with a tiny model.
"""

import time

import pytest
import torch

from alignlib.decoding import sampler
from helpers.drawing import fastest, generate_draws, prompts, sampler_draws
from helpers.steps import PASS, WARM, WAYS, Work, ours, policy, report, sum_once, theirs

SHAPES = [(256, 64), (1024, 128)]  # prompt, completion
KS = (2, 4, 8)
LLAMA = {"vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 22, "intermediate_size": 5632,
         "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
         "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}  # 1.1B parameters
STEP = 4 * PASS  # tokens of the data in a step
ROUNDS = 5
PADDED_AIM, TRL_AIM, MFU_AIM, SLACK = 3.0, 1.35, 0.40, 0.9  # the first at K = 8, the second at K = 2

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@on_a_gpu
@pytest.mark.parametrize("prompt, completion", SHAPES)
def test_flat_packs_against_dense_masks_and_padded_rows(prompt, completion, tmp_path):
    """As the model comes, then with its layers compiled, which should come near what the card can do."""
    model, short = policy(LLAMA, "cuda"), []
    assert model.flat
    for compiled in (False, True):
        if compiled:
            model.compile_layers()
        print("\nlayers compiled" if compiled else "")
        for k in KS:
            work = Work.holding(prompt, completion, k, STEP)
            meters = ours(model, work, tmp_path, "exo-rw", tuple(WAYS), WARM + ROUNDS)
            flops = work.flops(model.core)
            figures = {way: report(way, meter, work, None if way == "padded" else flops)
                       for way, meter in meters.items()}
            (rate, used), padded = figures["flat"], figures["padded"][0]
            print(f"  flat {rate / padded:.2f}x padded (bound {work.data_tokens / sum_once(work):.2f}), "
                  f"{rate / figures['dense'][0]:.2f}x dense")
            few = bool(compiled and used and used < SLACK * MFU_AIM)
            if few or (k == 8 and rate < SLACK * PADDED_AIM * padded):
                short.append((compiled, k, rate / padded, used))
    assert not short


@on_a_gpu
@pytest.mark.parametrize("prompt, completion", SHAPES)
def test_flat_packs_against_trl(prompt, completion, tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed here: the comparison with DPOTrainer is left out")
    work = Work.holding(prompt, completion, 2, STEP)
    model = policy(LLAMA, "cuda")
    print()
    rate, _ = report("flat", ours(model, work, tmp_path, "dpo-pref", ("flat",), WARM + ROUNDS)["flat"], work,
                     work.flops(model.core))
    del model
    torch.cuda.empty_cache()
    plain = policy(LLAMA, "cuda").core
    plain.set_attn_implementation("sdpa")
    other, _ = report("TRL", theirs(plain, work, tmp_path, WARM + ROUNDS), work)
    print(f"  flat {rate / other:.2f}x TRL (aim {TRL_AIM})")
    assert rate > SLACK * TRL_AIM * other


@on_a_gpu
@pytest.mark.parametrize("many, number", [(64, 1), (8, 8)])
def test_drawing_against_generate(many, number, monkeypatch):
    """Prompts of 256 and 128 new tokens each, none of which ends early, in bf16."""
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: set())
    model, new = policy(LLAMA, "cuda"), 128
    model.core.bfloat16().set_attn_implementation("sdpa")
    rows = [(record, i, row) for record, row in enumerate(prompts(many, 256, 30000)) for i in range(number)]
    ways = [sampler_draws(model, rows, new), generate_draws(model, [row for *_, row in rows], new)]
    mine, their = fastest(ways, 3, time.perf_counter)
    tokens = len(rows) * new
    print(f"\n{number} answers to each of {many} prompts: {tokens / mine:.0f} tokens/s, {mine / new * 1e3:.1f} ms a "
          f"token; transformers' generate {tokens / their:.0f}: {their / mine:.2f}x")
    assert their / mine > SLACK
