"""Tiny .gguf files, as llama.cpp's converter writes them of a Llama or a Gemma 2: all that a model is, in one."""

from pathlib import Path

import torch
import transformers

from helpers import tiny


def write(path: Path | str, model: transformers.PreTrainedModel | None = None, *, quantized: bool = False,
          words: transformers.PreTrainedTokenizerFast | None = None, architecture: str = "llama",
          name: str = "tiny", **more: object) -> str:
    """A file of `model` and `words`; quantized: its matrices as Q8_0, else all float32. more: keys, or float tensors.
    """
    import gguf

    model, words = model or tiny.causal("llama"), words or tiny.chat_tokenizer()
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    add_words(writer, words, config.vocab_size)
    for key, value in more.items():
        if isinstance(value, torch.Tensor):
            writer.add_tensor(key, value.float().numpy())
        else:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    kind_of_file = gguf.MODEL_ARCH.LLAMA if architecture == "whisper" else kinds[architecture]
    names = gguf.get_tensor_name_map(kind_of_file, config.num_hidden_layers)
    for full, weight in model.state_dict().items():
        stem, _, kind = full.rpartition(".")
        tied = stem == "lm_head" and config.tie_word_embeddings
        if tied:
            continue
        if architecture == "llama":
            weight = interleaved(full, weight, config)
        elif architecture == "gemma2" and stem.endswith("norm"):
            weight = weight + 1
        array = weight.float().numpy()
        if quantized and array.ndim == 2:
            packed = gguf.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{names.get_name(stem)}.{kind}", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{kind}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def interleaved(name: str, weight: torch.Tensor, config: transformers.LlamaConfig) -> torch.Tensor:
    """Rows of queries and keys in llama.cpp's order, which turns neighbours rather than halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = weight.view(count, 2, -1, *weight.shape[1:])
            return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight


def add_words(writer, words: transformers.PreTrainedTokenizerFast, rows: int) -> None:
    """The byte-level tokenizer, its control tokens and template; rows that no token has are named so."""
    import json

    import gguf

    ids = {number: token for token, number in words.get_vocab().items()}
    special = set(words.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([ids.get(i, f"[unused{i}]") for i in range(rows)])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(rows)])
    merges = json.loads(words.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_pad_token_id(words.pad_token_id)
    writer.add_add_bos_token(True)
    if words.chat_template:
        writer.add_chat_template(words.chat_template)
