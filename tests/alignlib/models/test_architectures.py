"""Every architecture that is promised, against transformers' own passes; also where texts go on for four windows."""

import pytest
import torch
import transformers

from alignlib.decoding import branches
from alignlib.decoding.sampler import Draw, Sampling, generate
from alignlib.models import attention, load
from alignlib.models.policy import Policy, RewardModel
from helpers import tiny

WINDOW = 8
ROWS = ("gpt_neo", "bloom", "mpt")  # have each completion in a row with its prompt; all others share prompts
OWN = (*ROWS, "gptj", "falcon")  # keep their attention; all others attend in strips
COPIES = (*OWN, "stablelm")  # branches get copies of the cache
WINDOWED = [family for family in (*tiny.ARCHITECTURES, "llama4") if tiny.windowed(family, WINDOW)]
MODELS = [pytest.param(family, {}, id=family) for family in tiny.ARCHITECTURES]
MODELS += [pytest.param(family, tiny.windowed(family, WINDOW), id=f"{family}-window") for family in WINDOWED]
CLASSIFIED = [family for family in tiny.ARCHITECTURES
              if tiny.config_class(family) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING]
GROUPS = [tiny.example(21, 40, 1, 12, seed=1), tiny.example(3, 9, 36, 0), tiny.example(44, 5, 14, 27, seed=2)]

pytestmark = pytest.mark.slow  # 17 s of one core


def test_every_kind_of_window_is_among_them():
    assert len(tiny.ARCHITECTURES) == 24 and len(CLASSIFIED) == 22 and len(WINDOWED) == 12
    kinds = {family: sorted(set(getattr(tiny.config(family, **tiny.windowed(family, WINDOW)), "layer_types", ())))
             for family in WINDOWED}
    mixed = ["full_attention", "sliding_attention"]
    assert kinds["mistral"] == [] and kinds["gemma3"] == mixed and kinds["qwen2"] == mixed
    assert kinds["llama4"] == ["chunked_attention", "full_attention"]


@pytest.mark.parametrize("family, changes", MODELS)
def test_numbers_are_transformers_own(family, changes, capsys):
    """Log-probabilities in packs, greedy texts, branches of texts that are read once."""
    plain, policy = tiny.causal(family, **changes), Policy(tiny.causal(family, **changes), tiny.tokenizer())
    assert policy.shared == (family not in ROWS)
    assert (policy.core.config._attn_implementation == attention.NAME) == (family not in OWN)
    same_logps(plain, policy)
    if family in WINDOWED and not changes:
        return  # the rest is tried beyond its window
    same_texts(plain, policy)
    capsys.readouterr()
    kind = branches.texts_type(policy)
    assert kind is (branches.Copies if family in COPIES else branches.Tree)
    assert ("candidates on a shared cache" in capsys.readouterr().err) == (family in COPIES)
    same_branches(plain, policy, kind)


def same_logps(plain, policy):
    """Token by token, of ragged groups in one pack."""
    batch = policy.pack(GROUPS)
    with torch.no_grad():
        logps = policy.token_logps(batch).split(batch.counts().flatten().int().tolist())
        for actual, (prompt, completion) in zip(logps, texts_of(GROUPS), strict=True):
            logits = plain(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1:-1]
            wanted = logits.log_softmax(-1)[torch.arange(len(completion)), completion]
            torch.testing.assert_close(actual, wanted, rtol=0, atol=2e-5)


def texts_of(groups):
    return [(group.prompt, completion) for group in groups for completion in group.completions]


def same_texts(plain, policy):
    """24 tokens of ragged prompts, in a batch that some of them leave earlier."""
    prompts = [group.prompt for group in GROUPS]
    plain.generation_config.eos_token_id = None
    own = [plain.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, pad_token_id=0)[0, len(prompt):]
           .tolist() for prompt in prompts]
    encoder = load.encoder_for(policy)
    encoder.ends = {own[1][5]}
    batch = [Draw(record, number, prompts[record], 0.0) for record, number in ((0, 0), (0, 1), (1, 0), (2, 0))]
    generate(policy, encoder, batch, Sampling(max_new_tokens=24))
    for draw in batch:
        ends = [place for place, token in enumerate(own[draw.record]) if token in encoder.ends]
        assert draw.ids == own[draw.record][:min(ends, default=24)]
    assert len(batch[2].ids) <= 5


@torch.inference_mode()
def same_branches(plain, policy, kind):
    """As al-args asks: of two texts three candidates each, of which one is kept, four times."""
    texts, candidates = {slot: list(GROUPS[group].prompt) for slot, group in ((0, 0), (1, 2))}, [5, 6, 7]
    slots = kind(policy, 2, 64)
    slots.begin(texts)
    for step in range(4):
        unread = {slot: slots.rewind(slot, text) if step in (0, 2) else [] for slot, text in texts.items()}
        states = slots.ask([(slot, tokens, candidates) for slot, tokens in unread.items()])
        states = states.split([count for tokens in unread.values() for count in (len(tokens), 3)])[1::2]
        for text, hidden in zip(texts.values(), states, strict=True):
            rows = torch.tensor([[*text, token] for token in candidates])
            torch.testing.assert_close(policy.logits(hidden), plain(input_ids=rows).logits[:, -1], rtol=0, atol=1e-4)
        slots.keep([(0, step % 3), (1, 2 - step % 3)])
        texts = {0: [*texts[0], candidates[step % 3]], 1: [*texts[1], candidates[2 - step % 3]]}
        if step % 2:  # what comes next is one token that nobody weighed
            texts = {slot: [*text, 9] for slot, text in texts.items()}


@pytest.mark.parametrize("family", CLASSIFIED)
def test_rewards_are_transformers_own(family):
    """Beyond a window, where the family knows any."""
    changes = tiny.windowed(family, WINDOW)
    plain, reward = (tiny.classifier(family, pad_token_id=None, **changes) for _ in range(2))
    reward = RewardModel(reward, tiny.tokenizer())
    with torch.no_grad():
        wanted = [plain(input_ids=torch.tensor([prompt + part])).logits[0, 0] for prompt, part in texts_of(GROUPS)]
        torch.testing.assert_close(reward.scores(reward.pack(GROUPS)).flatten(), torch.stack(wanted), rtol=1e-5,
                                   atol=1e-5)
