"""An untrained Llama of a named size, with a byte-level BPE tokenizer trained on records: a place to start from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignlib.records.disk import even_modes, whole_folder
from alignlib.records.jsonl import Record

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
LEAST_VOCABULARY = 256 + 3  # every byte, and the special tokens

# size: (hidden size, layers, feed-forward size, attention heads). With 2048 tokens all parameters together, the input
# embeddings among them (and counted once where the output shares them: up to 100m), are within 15 % of the name.
SHAPES = {
    "1m": (128, 4, 352, 4),
    "2m": (192, 4, 512, 6),
    "5m": (256, 6, 688, 8),
    "10m": (320, 8, 832, 10),
    "25m": (512, 8, 1344, 8),
    "100m": (768, 14, 2048, 12),
    "300m": (1024, 24, 2816, 16),
    "1b": (2048, 20, 5632, 32),
}
UNTIED = ("300m", "1b")


def texts(record: Record) -> Iterator[str]:
    """The texts of a record that a tokenizer should know."""
    for name in ("prompt", "chosen", "rejected", "text"):
        if name in record:
            yield record[name]
    yield from record.get("completions", ())
    yield from (message.get("content") or "" for message in record.get("messages", ()))


def train_tokenizer(corpus: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` tokens: byte-level BPE, so that any text comes back unchanged.

    It adds <|bos|> in front; <|eos|> and <|pad|> are two different tokens. `context` is the longest input in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[BOS, EOS, PAD], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    ))
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def build(size: str, vocabulary: int, context: int, seed: int, bos: int, eos: int,
          pad: int) -> LlamaForCausalLM:
    """A model with random float32 weights, the same for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    hidden, layers, feed_forward, heads = SHAPES[size]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=feed_forward,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context,
        tie_word_embeddings=size not in UNTIED, bos_token_id=bos, eos_token_id=eos, pad_token_id=pad,
    )
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def create(folder: Path, corpus: Iterable[str], size: str, vocabulary: int, context: int, seed: int) -> tuple[int, int]:
    """Write the tokenizer and the model into `folder`; returns the numbers of parameters and of tokens."""
    # Saving imports DeepSpeed, where that is installed; it would look for an accelerator, and say so on stdout.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    tokenizer = train_tokenizer(corpus, vocabulary, context)
    # A corpus of few words ends before the vocabulary is full: ids that no text has would only cost and mislead.
    model = build(size, len(tokenizer), context, seed, tokenizer.bos_token_id, tokenizer.eos_token_id,
                  tokenizer.pad_token_id)
    with whole_folder(folder) as partial:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
        even_modes(partial, "config.json")
    return model.num_parameters(), len(tokenizer)
