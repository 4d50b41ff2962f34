"""Others' reward models, against transformers' own reading of a whole conversation."""

import pytest
import torch
import transformers

from alignlib.models import load
from alignlib.models.scoring import PackScorer
from alignlib.models.whole_texts import WholeTexts
from helpers import tiny

pytestmark = pytest.mark.slow

SHAPE = {"vocab_size": tiny.VOCABULARY + 2, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": tiny.CONTEXT,
         "initializer_range": 0.3, "num_labels": 1, "eos_token_id": tiny.VOCABULARY - 2, "bos_token_id": None}
FAMILIES = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config, "gemma2": transformers.Gemma2Config, "gemma3": transformers.Gemma3TextConfig,
}
RECORDS = [
    {"messages": [{"role": "user", "content": "Name a colour."}], "completions": ["Blue.", "No, go away now."]},
    {"messages": [{"role": "system", "content": "the"}, {"role": "user", "content": "in"},
                  {"role": "assistant", "content": "an"}, {"role": "user", "content": "the end?"}],
     "completions": ["", "B", "Blue."]},
    {"prompt": "the inner", "completions": ["the end"]},
]


def folder(family, path, template=tiny.CHATML, **changes):
    torch.manual_seed(3)
    heads = {"head_dim": 16} if "head_dim" in FAMILIES[family]().to_dict() else {}
    config = FAMILIES[family](**{**SHAPE, **heads, "pad_token_id": tiny.VOCABULARY - 1, **changes})
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    words = tiny.chat_tokenizer()
    words.chat_template = template
    return tiny.save(model, path, words)


def by_transformers(path, record, text):
    """The way of model cards: the template's ids of all of it, one text at a time."""
    words = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, attn_implementation="eager").eval()
    turns = record.get("messages") or [{"role": "user", "content": record["prompt"]}]
    ids = words.apply_chat_template([*turns, {"role": "assistant", "content": text}])["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, 0].item()


def scores(path, records, tokens=4096):
    model = load.load_reward(path, "cpu", "fp32")
    encoder = load.encoder_for(model)
    assert isinstance(encoder, WholeTexts)
    examples = [encoder.encode(record, record["completions"]) for record in records]
    scorer = PackScorer(model, lambda batch: {"rewards": model.scores(batch)}, tokens)
    return [row["rewards"] for row in scorer.score(examples)]


@pytest.mark.parametrize("pad", [tiny.VOCABULARY - 1, None, tiny.TURN_END])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_transformers_own(family, pad, tmp_path):
    """Alone and in batches, with a pad token, without one, and with one that ends turns."""
    template = tiny.CHATML.replace("<|im_end|>\n", "<|im_end|>") if pad == tiny.TURN_END else tiny.CHATML
    path = folder(family, tmp_path, template, pad_token_id=pad)
    wanted = [[by_transformers(path, record, text) for text in record["completions"]] for record in RECORDS]
    assert scores(path, RECORDS) == [pytest.approx(row, abs=1e-4) for row in wanted]
    assert scores(path, RECORDS, tokens=1) == [pytest.approx(row, abs=1e-4) for row in wanted]


def test_control_tokens_in_what_is_judged_end_no_turn(tmp_path):
    path = folder("qwen2", tmp_path)
    encoder = load.encoder_for(load.load_reward(path, "cpu", "fp32"))
    example = encoder.encode(RECORDS[1], ["Blue.<|im_end|>"])
    ids = example.prompt + example.completions[0]
    assert ids.count(tiny.TURN_END) == 5 and ids[-2:] == [tiny.TURN_END, ord("\n")]
    assert encoder.tokens.decode(ids).endswith("Blue.<|im_end|>\n")


def test_what_completions_begin_with_alike_is_read_once(tmp_path):
    encoder = load.encoder_for(load.load_reward(folder("qwen2", tmp_path), "cpu", "fp32"))
    example = encoder.encode(RECORDS[0], ["Blue.", "Black."])
    assert encoder.tokens.decode(example.prompt).endswith("assistant\nBl")
    assert [encoder.tokens.decode(row) for row in example.completions] == ["ue.\n", "ack.\n"]
    same = encoder.encode(RECORDS[0], ["Blue.", "Blue."])
    assert [len(row) for row in same.completions] == [1, 1]


def test_the_end_may_be_said(tmp_path):
    """token: at the end of a turn, nothing behind it; none: at the completion's last token."""
    model = load.load_reward(folder("qwen2", tmp_path), "cpu", "fp32")
    token, none = (load.encoder_for(model, end=end).encode(RECORDS[0], ["Blue."]) for end in ("token", "none"))
    assert token.completions == [[*b"Blue.", tiny.TURN_END]] and none.completions == [[*b"Blue."]]


def test_without_a_template_a_text_goes_on(tmp_path):
    model = load.load_reward(folder("llama", tmp_path, template=None), "cpu", "fp32")
    encoder = load.encoder_for(model)
    example = encoder.encode({"prompt": "th"}, ["e end"])
    assert example.prompt + example.completions[0] == model.tokenizer("the end")["input_ids"]
    with pytest.raises(ValueError, match="no chat template"):
        encoder.encode(RECORDS[0], ["Blue."])
