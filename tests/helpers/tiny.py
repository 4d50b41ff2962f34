"""Tiny random models of every family we promise to pack, and a byte-level tokenizer, for the numeric tests.

Weights are drawn wide (deviation 0.3), so that logits differ by several nats and a wrong mask or position shows.
"""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from al_train_exo.objective import Contrast
from alignlib.models.encoding import Example
from alignlib.training.recipe import Recipe

MERGES = ["th", "the", "in", "an", "er", "\n\n", " t", " a"]  # a few words of more than one byte
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
VOCABULARY = 256 + len(MERGES) + 3
CONTEXT = 256
FAMILIES = ("llama", "gpt_neox", "gpt2", "opt")
CHATS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")  # of which there are chat and reward models


def tokenizer(*, bos: bool = True, pad: str = PAD) -> PreTrainedTokenizerFast:
    """Bytes and a few merges; `bos`: whether it puts one before a text; `pad` may be EOS itself."""
    vocabulary = {_marks()[byte]: byte for byte in range(256)}
    merges = []
    for text in MERGES:  # each is an earlier one, or a byte, and one byte more
        marked = "".join(_marks()[byte] for byte in text.encode())
        head = marked[:-1]
        merges.append((head, marked[-1]))
        vocabulary[marked] = len(vocabulary)
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([BOS, EOS, PAD])
    if bos:
        fast.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, fast.token_to_id(BOS))])
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BOS, eos_token=EOS, pad_token=pad)


CHATML = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TURN_START, TURN_END = VOCABULARY, VOCABULARY + 1  # ids of a chat tokenizer's


def chat_tokenizer(template: str = CHATML, *, bos: bool = True) -> PreTrainedTokenizerFast:
    """The same with a chat template and two tokens more, of ChatML's kind; its end-of-sequence ends no turn."""
    words = tokenizer(bos=bos)
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = template
    return words


def _marks() -> dict[int, str]:
    """The printable character that byte-level tokenizers write for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def config(family: str, **changes):
    """A configuration of `family` with two layers of width 32, and dropout where the family knows any."""
    ends = {"bos_token_id": VOCABULARY - 3, "eos_token_id": VOCABULARY - 2, "pad_token_id": VOCABULARY - 1}
    common = {"vocab_size": VOCABULARY, "initializer_range": 0.3, **ends}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": CONTEXT}
    wide = {**layers, "intermediate_size": 48}
    makers = {
        "llama": lambda: transformers.LlamaConfig(**{**common, **wide, "num_key_value_heads": 2, **changes}),
        "mistral": lambda: transformers.MistralConfig(**{**common, **wide, "num_key_value_heads": 2, **changes}),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**{**common, **wide, "attention_dropout": 0.2,
                                                          "hidden_dropout": 0.2, **changes}),
        "gpt2": lambda: transformers.GPT2Config(**{**common, "n_layer": 2, "n_head": 4, "n_embd": 32,
                                                   "n_positions": CONTEXT, **changes}),
        "opt": lambda: transformers.OPTConfig(**{**common, **layers, "ffn_dim": 48, "word_embed_proj_dim": 24,
                                                 "dropout": 0.2, "do_layer_norm_before": True, **changes}),
        "qwen2": lambda: transformers.Qwen2Config(**{**common, **wide, "num_key_value_heads": 2, **changes}),
        "qwen3": lambda: transformers.Qwen3Config(**{**common, **wide, "num_key_value_heads": 2, "head_dim": 8,
                                                     **changes}),
        "gemma2": lambda: transformers.Gemma2Config(**{**common, **wide, "num_key_value_heads": 2, "head_dim": 8,
                                                       **changes}),
        "gemma3": lambda: transformers.Gemma3TextConfig(**{**common, **wide, "num_key_value_heads": 2, "head_dim": 8,
                                                           **changes}),
        "bloom": lambda: transformers.BloomConfig(**common, n_layer=2, n_head=4, hidden_size=32, **changes),
    }
    return makers[family]()


def causal(family: str, seed: int = 0, **changes) -> torch.nn.Module:
    """An untrained language model in float32, on the CPU, in eval mode."""
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config(family, **changes)).eval()


def classifier(family: str, labels: int = 1, seed: int = 0, **changes) -> torch.nn.Module:
    """An untrained sequence classifier; one label: a reward model."""
    torch.manual_seed(seed)
    shape = config(family, num_labels=labels, **changes)
    return transformers.AutoModelForSequenceClassification.from_config(shape).eval()


def save(model: torch.nn.Module, folder: Path, words: PreTrainedTokenizerFast | None = None) -> str:
    """The model and its tokenizer as a Hugging Face folder; its path."""
    model.save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return str(folder)


def example(prompt: int, *completions: int, seed: int = 0, **values) -> Example:
    """An Example of so many random tokens in the prompt and in each completion."""
    numbers = torch.Generator().manual_seed(1000 * seed + prompt)

    def draw(count: int) -> list[int]:
        return torch.randint(0, 256, (count,), generator=numbers).tolist()

    return Example(draw(prompt), [draw(count) for count in completions], dict(values))


def recipe(folder: Path | str, **changes) -> Recipe:
    """A recipe of a few quick steps, all it says changeable."""
    plain = dict(
        output=str(folder), resume=False, batch_size=4, pack_tokens=4096, epochs=1.0, steps=None, lr=1e-2,
        optimizer="adamw", betas=(0.9, 0.95), weight_decay=0.0, schedule="constant", warmup=0.0, clip=1.0,
        max_length=None, max_prompt=None, max_completion=None, keep_prompt="end", on_long="truncate", template=None,
        template_args=(), control_tokens=False, dtype="fp32",
        device="cpu", gradient_checkpointing=False, zero=None, offload="none", deepspeed=None,
        lora=None, lora_alpha=None, lora_dropout=0.0, lora_targets=None, lora_lr=None, load_4bit=False,
        save_adapter=False, save_dtype="auto", eval=None, eval_every=None, save_every=None, keep=1, seed=0)
    return Recipe(**{**plain, **changes})


def contrast(loss: str = "dpo-pref", **changes) -> Contrast:
    """al-train-exo's objective with its defaults."""
    how = dict(beta_pi=0.5, beta_r=0.5, gamma=0.5, temperature=1.0, num_contrastive=None, ref="self", smoothing=0.0,
               reference_free=False, importance=False, sft_reg=0.0)
    return Contrast(loss, **{**how, **changes})
