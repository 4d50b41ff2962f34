"""Training steps of a 1.1B Llama on a GPU: flat packs beside dense masks, padded rows and TRL's DPOTrainer.

Without a GPU all is skipped; test_bench_gpu.py takes the same steps with a tiny model.
"""

import pytest
import torch

from helpers.steps import PASS, WARM, WAYS, Work, ours, policy, report, sum_once, theirs

SHAPES = [(256, 64), (1024, 128)]  # prompt, completion
KS = (2, 4, 8)
LLAMA = {"vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 22, "intermediate_size": 5632,
         "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
         "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}  # 1.1B parameters
STEP = 4 * PASS  # tokens of the data in a step
ROUNDS = 8
PADDED_AIM, TRL_AIM, MFU_AIM, SLACK = 3.0, 1.35, 0.40, 0.9  # the first at K = 8, the second at K = 2

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@on_a_gpu
@pytest.mark.parametrize("prompt, completion", SHAPES)
def test_flat_packs_against_dense_masks_and_padded_rows(prompt, completion, tmp_path):
    model, short = policy(LLAMA, "cuda"), []
    assert model.flat
    print()
    for k in KS:
        work = Work.holding(prompt, completion, k, STEP)
        meters = ours(model, work, tmp_path, "exo-rw", tuple(WAYS), WARM + ROUNDS)
        flops = work.flops(model.core)
        figures = {way: report(way, meter, work, None if way == "padded" else flops) for way, meter in meters.items()}
        (rate, used), padded = figures["flat"], figures["padded"][0]
        print(f"  flat {rate / padded:.2f}x padded (bound {work.data_tokens / sum_once(work):.2f}), "
              f"{rate / figures['dense'][0]:.2f}x dense")
        if (k == 8 and rate < SLACK * PADDED_AIM * padded) or (used and used < SLACK * MFU_AIM):
            short.append((k, rate / padded, used))
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
