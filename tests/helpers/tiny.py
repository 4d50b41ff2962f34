"""Tiny random models of every family we promise to pack, and a byte-level tokenizer, for the numeric tests.

Weights are drawn wide (deviation 0.3), so that logits differ by several nats and a wrong mask or position shows.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from al_train_exo.objective import Contrast
from alignlib.models.example import Example
from alignlib.training.examples import Examples, Writer
from alignlib.training.recipe import Recipe

MERGES = ["th", "the", "in", "an", "er", "\n\n", " t", " a"]  # a few words of more than one byte
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
VOCABULARY = 256 + len(MERGES) + 3
CONTEXT = 256
FAMILIES = ("llama", "gpt_neox", "gpt2", "opt")
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "opt", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "phi3", "mistral",
                 "mixtral", "qwen3_moe", "smollm3", "cohere", "granite", "olmo2", "gptj", "gpt_neo", "bloom", "mpt",
                 "gpt_oss", "stablelm", "falcon")
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


def sentence_piece(style: str) -> PreTrainedTokenizerFast:
    """A tokenizer that marks word starts: by a normalizer (Llama 2) or by a pre-tokenizer (T5, newer Llama files)."""
    letters = ["<unk>", "<s>", "</s>", "▁", *"YesNohi.,:QA", "▁Y", "▁Yes", "▁N", "▁No"]
    merges = [("▁", "Y"), ("▁", "N"), ("▁N", "o")]
    vocabulary = {letter: i for i, letter in enumerate(dict.fromkeys([*letters, "es", "\n"]))}
    merges += [("e", "s"), ("▁Y", "es")]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=False))
    if style == "prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if style == "first" else "always")
        inner.decoder = decoders.Metaspace(prepend_scheme="first" if style == "first" else "always")
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


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
    grouped = {**wide, "num_key_value_heads": 2}
    narrow = {**grouped, "head_dim": 8}
    shapes = {
        "gpt_neox": {**wide, "attention_dropout": 0.2, "hidden_dropout": 0.2},
        "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": CONTEXT},
        "opt": {**layers, "ffn_dim": 48, "word_embed_proj_dim": 24, "dropout": 0.2, "do_layer_norm_before": True},
        "qwen3": narrow,
        "gemma2": narrow,
        "gemma3": {**narrow, "layer_types": ["sliding_attention", "full_attention"]},
        "phi": wide,
        "mixtral": {**grouped, **EXPERTS},
        "qwen3_moe": {**narrow, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 24},
        "gptj": {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": CONTEXT, "rotary_dim": 4},
        "gpt_neo": {**{name: layers[name] for name in ("hidden_size", "max_position_embeddings")}, "num_layers": 2,
                    "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "bloom": {"n_layer": 2, "n_head": 4, "hidden_size": 32},
        "mpt": {"n_layers": 2, "n_heads": 4, "d_model": 32, "max_seq_len": CONTEXT},
        "gpt_oss": {**narrow, **EXPERTS},
        "falcon": {**layers, "alibi": False},
        "llama4": {**narrow, **EXPERTS, "intermediate_size_mlp": 48, "no_rope_layers": [1, 0]},
        "qwen3_next": {**narrow, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 24,
                       "shared_expert_intermediate_size": 24, "layer_types": ["linear_attention", "full_attention"],
                       **{f"linear_{name}": 2 if "num" in name else 8 for name in
                          ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")}},
    }
    return config_class(family)(**{**common, **shapes.get(family, grouped), **changes})


EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}  # of mixtures


def config_class(family: str) -> type[transformers.PreTrainedConfig]:
    """The configuration of language models of the family, without pictures or sounds."""
    kind = f"{family}_text" if family in ("gemma3", "llama4") else family
    return transformers.CONFIG_MAPPING[kind]


def windowed(family: str, size: int):
    """Changes to config() that give a family's layers, or some of them, windows of so many tokens; none: {}."""
    switched = {"sliding_window": size, "use_sliding_window": True}
    plain = dict.fromkeys(("gemma2", "gemma3", "phi3", "mistral", "mixtral", "gpt_oss"), {"sliding_window": size})
    return {**plain, "qwen2": {**switched, "max_window_layers": 1}, "qwen3": {**switched, "max_window_layers": 1},
            "qwen3_moe": switched, "smollm3": {**switched, "no_rope_layers": [1, 0]},
            "gpt_neo": {"window_size": size}, "llama4": {"attention_chunk_size": size}}.get(family, {})


def causal(family: str, seed: int = 0, **changes) -> torch.nn.Module:
    """An untrained language model in float32, on the CPU, in eval mode."""
    torch.manual_seed(seed)
    return under_caps(transformers.AutoModelForCausalLM.from_config(config(family, **changes)))


def classifier(family: str, labels: int = 1, seed: int = 0, **changes) -> torch.nn.Module:
    """An untrained sequence classifier; one label: a reward model."""
    torch.manual_seed(seed)
    shape = config(family, num_labels=labels, **changes)
    return under_caps(transformers.AutoModelForSequenceClassification.from_config(shape))


def under_caps(model: torch.nn.Module) -> torch.nn.Module:
    """With its own attention where that caps scores (Gemma 2): transformers 5.17 takes another, which does not."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")
    return model.eval()


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


def stored(examples: Iterable[Example]) -> Examples:
    """The examples as trainers have them: mapped, from files that have gone already."""
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        for one in examples:
            writer.add(one)
        return Examples(Path(folder), writer.close(), 0, len(writer))


def recipe(folder: Path | str, **changes) -> Recipe:
    """A recipe of a few quick steps, all it says changeable."""
    plain = dict(
        output=str(folder), resume=False, on_error="fail", batch_size=4, pack_tokens=4096, epochs=1.0, steps=None,
        lr=1e-2, optimizer="adamw", betas=(0.9, 0.95), weight_decay=0.0, schedule="constant", warmup=0.0, clip=1.0,
        max_length=None, max_prompt=None, max_completion=None, keep_prompt="end", on_long="truncate", template=None,
        template_args=(), control_tokens=False, dtype="fp32",
        device="cpu", gradient_checkpointing=False, compile=False, zero=None, offload="none", deepspeed=None,
        lora=None, lora_alpha=None, lora_dropout=0.0, lora_targets=None, lora_lr=None, load_4bit=False,
        save_adapter=False, save_dtype="auto", eval=None, eval_every=None, save_every=None, keep=1, seed=0)
    return Recipe(**{**plain, **changes})


def contrast(loss: str = "dpo-pref", **changes) -> Contrast:
    """al-train-exo's objective with its defaults."""
    how = dict(beta_pi=0.5, beta_r=0.5, gamma=0.5, temperature=1.0, num_contrastive=None, ref="self", smoothing=0.0,
               reference_free=False, importance=False, sft_reg=0.0, orpo_lambda=0.1, kto_threshold=0.0, kto_good=1.0,
               kto_bad=1.0)
    return Contrast(loss, **{**how, **changes})
