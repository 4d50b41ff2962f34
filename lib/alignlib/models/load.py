"""Load and save policies and reward models."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from alignlib import hub, ranks, waits
from alignlib.model_names import parts
from alignlib.models import adapters, checkpoint, faults, heads, precision, sources, token_rewards
from alignlib.models.adapters import Adapter
from alignlib.models.checkpoint import AutoClass, Spare
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Model, Policy, RewardModel, context_length
from alignlib.models.precision import dtype_for
from alignlib.models.shards import gather_weights, is_sharded
from alignlib.models.text_part import find_text_part
from alignlib.models.token_rewards import NextTokenReward, TokenReward
from alignlib.models.tokenizer_files import load_tokenizer
from alignlib.models.whole_texts import WholeTexts
from alignlib.records.disk import even_modes

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # accelerate imports deepspeed, which else warns that it guesses
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

P = TypeVar("P", bound=Policy)
Narrow = Callable[[PreTrainedModel], None]
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop", "resid_pdrop",
            "embd_pdrop", "attn_pdrop", "classifier_dropout", "summary_first_dropout")


def device_for(name: str, option: str = "--device") -> torch.device:
    """ "auto" is the GPU where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.size() > 1:
        name = f"cuda:{ranks.local()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise click.UsageError(f"{option} {name}: no such device; there are cpu, cuda, cuda:1, ...") from error
    kind = torch.accelerator.current_accelerator()
    there = torch.accelerator.device_count() if kind and kind.type == device.type else 0
    if device.type != "cpu" and (device.index or 0) >= there:
        raise click.UsageError(f"{option} {name}: torch finds {there} {device.type} devices here")
    return device


# -- loading -----------------------------------------------------------------------------------------------


def load_config(path: str) -> PreTrainedConfig:
    """The model's configuration; an adapter's is its base's, as the adapter has it. Raises UsageError for no model."""
    if adapter := adapters.find(path):
        return adapters.adapted_config(base_config(adapter), adapter)
    sources.must_be_there(path)
    found = parts(path)
    if found.gguf:
        return sources.gguf_config(path)
    here = Path(found.folder).exists() or not hub.answers()  # what is in the cache is still found

    def config_in(folder: str) -> PreTrainedConfig:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=here, trust_remote_code=False)

    try:
        with waits.doing(f"asking for {path}"):
            faults.must_be_config(Path(cached_file(found.folder, faults.CONFIG, local_files_only=here)))
            config = config_in(found.folder)
    except OSError as error:
        raise sources.not_on_the_hub(path, error) from error
    except click.UsageError:
        raise
    except Exception as error:  # whatever the file makes transformers raise
        checkpoint.must_know_type(found.folder)
        faults.refuse(found.folder, (faults.CONFIG,), config_in, error)
        raise
    config._attn_implementation = None  # a folder's may be code on the Hub; ours is chosen where a model is loaded
    return config


def base_config(adapter: Adapter) -> PreTrainedConfig:
    """Of the model under an adapter. Raises UsageError for an adapter whose base is not to be had."""
    try:
        if adapters.find(adapter.base):
            raise click.UsageError(f"{adapter.base}: an adapter itself")
        return load_config(adapter.base)
    except click.UsageError as error:
        raise click.UsageError(f"{adapter.path}: an adapter whose base is not to be had: {error.message}; write where "
                               f"it is into {adapter.folder / adapters.CONFIG}, as base_model_name_or_path") from error


def is_classifier(path: str) -> bool:
    """Whether the folder holds a sequence classifier (a reward model), whoever saved it (heads.py)."""
    config = load_config(path)
    return heads.names_classifier(config) or heads.find_value_head(adapter_base(path) or path, config) is not None


def token_reward(path: str) -> type[TokenReward] | None:
    """How a folder is read whose logits are rewards of next tokens (token_rewards.py); None for any other."""
    return token_rewards.kind_of(load_config(path), path)


def load(auto: AutoClass, path: str, device: str, dtype: torch.dtype, fresh: tuple[str, ...] = (),
         spare: Spare = checkpoint.nothing, narrow: Narrow | None = None,
         **settings: object) -> tuple[PreTrainedModel, set[str]]:
    """A model in eval mode, without dropout, and the weights that it lacked; as checkpoint.read. Raises UsageError.

    narrow and quantization_config are of precision.frozen_linear.
    """
    with waits.doing(f"loading {path}"):
        model, lacking = checkpoint.read(sources.loader_for(auto, path), path, dtype, fresh, spare, **settings)
        remove_dropout(model)
        if "quantization_config" in settings:
            precision.keep_unpacked(model)
        if narrow:  # before it is on a device
            narrow(model)
        # Mapped from a file, weights begin at any byte, and sums round by it: a resumed run would stray a bit.
        for weight in () if is_sharded(model) else model.parameters():
            weight.data = weight.data.clone()
        return (model if is_sharded(model) else model.to(device_for(device))).eval(), lacking


def remove_dropout(model: nn.Module) -> None:
    """Training sees the numbers that scoring saw: a policy that is its own reference starts at log 2."""
    for module in model.modules():
        for name in DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def load_policy(path: str, device: str = "auto", dtype: str = "auto", *, train: bool = False, go_on: bool = False,
                bits: int = 32) -> Policy:
    """A causal language model and its tokenizer, an adapter merged into its base. Raises UsageError.

    train = True keeps float32 weights and computes in `dtype` (autocast). go_on = True leaves an adapter over its base,
    to train on in it. bits: of linear layers that do not train (precision.frozen_linear).
    """
    if token_reward(path) not in (None, NextTokenReward):
        raise click.UsageError(f"{path}: a reward model (of the values of next tokens); a policy is needed here")
    policy = load_causal(Policy, path, device, dtype, train=train, go_on=go_on, bits=bits)
    vars(policy.core.config).pop("reward_kind", None)  # what comes of it need not be a reward model
    return policy


def load_causal(kind: type[P], path: str, device: str, dtype: str, *, train: bool = False, go_on: bool = False,
                bits: int = 32) -> P:
    """The causal language model at `path` as a model of this kind; else as `load_policy`."""
    adapter = adapters.find(path)
    base = adapter.base if adapter else path
    config = base_config(adapter) if adapter else load_config(path)
    if adapter and adapter.classifies:
        raise click.UsageError(f"{path}: a reward model (an adapter of one); a policy is needed here")
    if head := heads.find_value_head(base, config):
        raise click.UsageError(f"{path}: a reward model (its head is {head.name}); a policy is needed here")
    if heads.names_classifier(config):
        raise click.UsageError(f"{path}: a reward model (sequence classifier); a policy is needed here")
    names, auto = config.architectures or ["ForCausalLM"], transformers.AutoModelForCausalLM
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        auto = find_text_part(config)
        if auto is None:
            why = ", whose text part transformers has no model for" if "Conditional" in names[0] else ""
            raise click.UsageError(f"{path}: not a causal language model but a {names[0]}{why}")
    wanted = dtype_for(dtype, device_for(device), config)
    bits = 32 if adapter and not go_on and bits == 16 else bits  # what is merged is not as it was stored
    kept = precision.frozen_linear(bits, wanted, device_for(device), adapter and adapter.config)
    model, _ = load(auto, base, device, torch.float32 if train else wanted, **kept)
    if adapter:
        model = adapters.attach(model, adapter, train=True) if go_on else adapters.merge(model, adapter)
        adapters.describe_reward(model.config, adapter)
    autocast = wanted if train and wanted != torch.float32 else None
    return kind(model, load_tokenizer(path), autocast=autocast, train=train)


def adapter_base(path: str) -> str | None:
    """The base model that an adapter names; None for a whole model."""
    adapter = adapters.find(path)
    return adapter.base if adapter else None


def load_reward(path: str, device: str = "auto", dtype: str = "auto") -> RewardModel | TokenReward:
    """A sequence classifier, or a policy whose logits are rewards; adapters merged. Raises UsageError."""
    if kind := token_reward(path):
        return load_causal(kind, path, device, dtype)
    if not is_classifier(path):
        raise click.UsageError(f"{path}: a policy or a bare model; a reward model (sequence classifier) is needed here")
    wanted = dtype_for(dtype, device_for(device), load_config(path))
    model, _ = load_classifier(path, device, wanted)
    return RewardModel(model, load_tokenizer(path))


def load_classifier(path: str, device: str, dtype: torch.dtype, *, go_on: bool = False,
                    **settings: Any) -> tuple[PreTrainedModel, set[str]]:
    """The sequence classifier at `path`, as `load`, whoever saved it and whatever its configuration leaves out.

    go_on: as load_policy.
    """
    if adapter := adapters.find(path):
        if not go_on:  # what is merged is not as it was stored
            settings.pop("narrow", None)
        if adapter.labels:
            settings.setdefault("num_labels", adapter.labels)
        if is_classifier(adapter.base):
            model, _ = load_classifier(adapter.base, device, dtype, **settings)
        else:
            model, _ = load(transformers.AutoModelForSequenceClassification, adapter.base, device, dtype,
                            fresh=heads.HEADS, spare=checkpoint.language_head, **settings)
        model = adapters.attach(model, adapter, train=True) if go_on else adapters.merge(model, adapter)
        adapters.describe_reward(model.config, adapter)
        return model, set()
    if head := heads.find_value_head(path, load_config(path)):
        return load(head, path, device, dtype, spare=checkpoint.language_head, **settings)
    if "num_labels" not in settings and (labels := heads.count_labels(path)):
        settings["num_labels"] = labels
    return load(transformers.AutoModelForSequenceClassification, path, device, dtype, **settings)


def encoder_for(model: Model, *, end: str | None = None, **limits: Any) -> Encoder:
    """The model's own Encoder, under an Encoder's limits: at most its context. Raises UsageError.

    A reward model of al-train-rm's says in its configuration whether it reads an end; another's reads whole texts. end:
    "token" has any read at an end, "none" at the last token of a completion's words.
    """
    config = model.core.config
    if isinstance(model, Policy):
        ends = generation_ends(model.core.generation_config)
        return build_encoder(config, model.tokenizer, eos=end != "none", ends=ends, **limits)
    eos = end == "token" if end else getattr(config, "reads_eos", None)
    if eos is None:
        return build_encoder(config, model.tokenizer, WholeTexts, pad=config.get_text_config().pad_token_id, **limits)
    return build_encoder(config, model.tokenizer, eos=eos, **limits)


def generation_ends(config: transformers.GenerationConfig | None) -> tuple[int, ...]:
    """The ids that a generation configuration ends a text with."""
    ids = config.eos_token_id if config else None
    return tuple(ids) if isinstance(ids, list) else () if ids is None else (int(ids),)


def build_encoder(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, kind: type[Encoder] = Encoder, *,
                  max_length: int | None = None, **settings: Any) -> Encoder:
    """An Encoder for a model of this configuration. Raises UsageError for what it was not made for."""
    longest, known = context_length(config), getattr(config.get_text_config(), "vocab_size", None)
    if known and tokenizer.vocab_size > known:  # added tokens may be there for others only
        raise click.UsageError(f"{config.name_or_path}: a tokenizer of {tokenizer.vocab_size} tokens, "
                               f"a model of {known}")
    if tokenizer.sep_token_id is not None:  # an encoder's; RoBERTa counts its positions from 2
        longest = min(longest, tokenizer.model_max_length)
    if max_length and max_length > longest:
        raise click.UsageError(f"--max-length {max_length}: the model's context is {longest} tokens")
    try:
        return kind(tokenizer, max_length=max_length or min(longest, 2048), rows=known, **settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


# -- saving ------------------------------------------------------------------------------------------------


def save(model: Model, folder: Path, weights: dict[str, Tensor] | None = None,
         dtype: torch.dtype | None = None) -> None:
    """A Hugging Face folder that loads with from_pretrained, of the model's own weights or others of the same names.

    dtype: what the weights are kept in, if not in their own; they are cast in their dict (checkpoint.cast).
    """
    weights = weights or merged_weights(model)
    model.core.save_pretrained(folder, state_dict=checkpoint.cast(weights, dtype) if dtype else weights)
    if dtype:
        own, model.core.config.dtype = model.core.config.dtype, dtype
        model.core.config.save_pretrained(folder)
        model.core.config.dtype = own
    model.tokenizer.save_pretrained(folder)
    even_modes(folder, "config.json")


@torch.no_grad()
def merged_weights(model: Model) -> dict[str, Tensor]:
    """The plain model's weights on the CPU, adapters added in; the model itself stays as it is.

    A device has room for one layer's change, not for a second model. Of a model in parts on several ranks every rank
    must call this; the first alone gets what was in parts, and of a model that each rank has, all.
    """
    if not ranks.first() and not is_sharded(model.core):
        return {}
    weights = {adapters.plain_name(name): weight for name, weight in full_state_dict(model.core).items()
               if ".lora_" not in name and ".original_module." not in name}
    checkpoint.replace(weights, lambda weight: weight.cpu().float() if weight.dtype == model.autocast else weight.cpu())
    for name, module in adapters.changed_weights(model.core):
        with gather_weights(module.parameters()):
            for adapter in module.active_adapters:
                if (plain := weights.get(name)) is not None:
                    weights[name] = plain + module.get_delta_weight(adapter).to(plain.device)
    return weights


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict; what is in parts on several ranks is gathered, module by module, into the first one's memory."""
    weights = dict(model.state_dict())
    copies: dict[int, Tensor] = {}  # weights that are tied stay one
    for prefix, module in model.named_modules() if is_sharded(model) else ():
        own = dict(module.named_parameters(prefix, recurse=False))
        with gather_weights(own.values()):
            for name, weight in own.items():
                if not ranks.first():
                    weights.pop(name, None)
                    continue
                if id(weight) not in copies:
                    copies[id(weight)] = weight.detach().cpu().clone()
                weights[name] = copies[id(weight)]
    return weights
