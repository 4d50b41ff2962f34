"""Adapters: peft's folders, which hold what was learnt over a base model that they name.

    DIR/adapter_config.json   the method, the layers it is on, the base
    DIR/adapter_model.*       its weights; a reward model's head, embeddings of another vocabulary beside them
    DIR/reward_model.json     of al-train-rm's: what a whole reward model says in its config.json
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_files

from alignlib import hub, waits
from alignlib.model_names import parts
from alignlib.models import checkpoint, faults, heads
from alignlib.models.checkpoint import first_line
from alignlib.models.shards import is_sharded
from alignlib.models.text_part import in_text, is_of_text

CONFIG, WEIGHTS, REWARD = "adapter_config.json", "adapter_model.safetensors", "reward_model.json"
FILES = (CONFIG, WEIGHTS, "adapter_model.bin")
INSIDE = "base_model.model."  # what peft puts before a weight's name
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out")  # the last two: outputs
NO_MERGE = ("layer_replication", "alora_invocation_tokens", "lora_bias")  # of a LoraConfig: what weights do not hold
OF_A_REWARD = ("reads_eos", "reward_pool", "reward_kind", "pad_token_id", "id2label")  # what REWARD may say
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which peft imports where it is: else it warns of a kernel


@dataclass(frozen=True)
class Adapter:
    """A folder of peft's; `config` is its LoraConfig, or that of another method.

    path    as the user named it
    folder  where its files are
    base    the model that it was trained over, as it names it
    """

    path: str
    folder: Path
    base: str
    config: Any

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """By their names in the base model's class. Raises UsageError."""
        file = next((self.folder / name for name in FILES[1:] if (self.folder / name).is_file()), None)
        if file is None:
            raise click.UsageError(f"{self.path}: an adapter without weights (it has no {WEIGHTS})")
        return {name.removeprefix(INSIDE): weight for name, weight in checkpoint.tensors(file).items()}

    @property
    def labels(self) -> int | None:
        """Of the classifier's head among its weights; None where there is none."""
        return next((len(self.weights[f"{name}.weight"]) for name in heads.HEADS if f"{name}.weight" in self.weights),
                    None)

    @property
    def classifies(self) -> bool:
        """Whether it makes a sequence classifier, a reward model, of its base."""
        return self.config.task_type == "SEQ_CLS" or (self.config.task_type is None and self.labels is not None)

    @property
    def rows(self) -> int | None:
        """Tokens of a vocabulary of its own: rows of the embeddings among its weights; None where there are none."""
        return next((weight.shape["lora_embedding_A" in name] for name, weight in self.weights.items()
                     if not any(part in name for part in ("lora_A", "lora_B", "embedding_B", "trainable_tokens"))
                     and weight.ndim == 2 and set(name.split(".")) & set(EMBEDDINGS)), None)

    @property
    def unties(self) -> bool:
        """Whether it has either of input and output embeddings changed in a way of its own."""
        modules = {part for name in self.weights if "lora_" in name for part in name.split(".")}
        modules |= set(getattr(self.config, "modules_to_save", None) or ())
        return bool(modules & set(EMBEDDINGS)) and not getattr(self.config, "ensure_weight_tying", False)

    @property
    def ties(self) -> bool:
        """Whether LoRA is on embeddings and, by ensure_weight_tying, on the output head that they are as well."""
        modules = {part for name in self.weights if "lora_embedding_" in name for part in name.split(".")}
        return bool(modules & set(EMBEDDINGS)) and getattr(self.config, "ensure_weight_tying", False)

    @property
    def reward(self) -> dict[str, Any]:
        """What its REWARD says of a reward model: values of a configuration. Raises UsageError."""
        file = self.folder / REWARD
        if not file.is_file():
            return {}
        try:
            known = {name: value for name, value in faults.read(file).items() if name in OF_A_REWARD}
            if "id2label" in known:
                known["id2label"] = {int(number): label for number, label in known["id2label"].items()}
        except (ValueError, AttributeError) as error:
            raise click.UsageError(f"{file}: not what al-train-rm --save-adapter writes") from error
        return known

    def must_merge(self) -> None:
        """Raises UsageError for what has no place in a model's weights, or is for another kind of model."""
        if self.config.is_prompt_learning or self.config.peft_type.value == "ADAPTION_PROMPT":
            raise click.UsageError(f"{self.path}: an adapter by {self.config.peft_type.value}, which is no "
                                   "change of weights (LoRA and its like are)")
        if odd := next((name for name in NO_MERGE if getattr(self.config, name, None)), None):
            raise click.UsageError(f"{self.path}: an adapter with {odd}, which peft does not merge into a base's "
                                   "weights; train one without it")
        if self.config.task_type not in (None, "CAUSAL_LM", "SEQ_CLS"):
            raise click.UsageError(f"{self.path}: an adapter for {self.config.task_type}: neither a policy's nor a "
                                   "reward model's")


def find(path: str) -> Adapter | None:
    """The adapter in a folder, or of a name on the Hub; None for whatever else is there. Raises UsageError."""
    apart = parts(path)
    if apart.weights or apart.gguf:
        return None
    folder = Path(path) if Path(path).exists() else from_hub(path)
    if not folder or not (folder / CONFIG).is_file():
        return None
    import peft

    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # whatever the file makes peft raise
        faults.refuse(str(folder), (CONFIG,), peft.PeftConfig.from_pretrained, error, f"peft {peft.__version__}")
        raise
    base = config.base_model_name_or_path
    if base is not None and not isinstance(base, str):
        raise click.UsageError(f"{folder / CONFIG}: base_model_name_or_path: expected a string, got "
                               f"{faults.shown(base)}")
    changed = getattr(config, "modules_to_save", None) or []
    if not isinstance(changed, list) or not all(isinstance(name, str) for name in changed):
        raise click.UsageError(f"{folder / CONFIG}: modules_to_save: expected an array of strings, got "
                               f"{faults.shown(changed)}")
    if not base:
        raise click.UsageError(f"{path}: an adapter that names no base model; write which into {folder / CONFIG}, as "
                               "base_model_name_or_path")
    return Adapter(path, folder, base, config)


@cache
def from_hub(name: str) -> Path | None:
    """Where the files of an adapter on the Hub are, once they are here; None for what is none."""
    local = not hub.answers()

    def fetch(*files: str) -> list[str]:
        there = cached_files(name, list(files), local_files_only=local, _raise_exceptions_for_missing_entries=False,
                             _raise_exceptions_for_connection_errors=False)
        return there or []

    with waits.doing(f"asking for {name}"):
        try:
            config = fetch(CONFIG)
        except OSError:  # no such name: who loads it as a model says so
            config = []
        if not config:
            return None
        fetch(*FILES[1:], REWARD)
        return Path(config[0]).parent


def adapted_config(config: PreTrainedConfig, adapter: Adapter) -> PreTrainedConfig:
    """The base's configuration as the adapter has it: another vocabulary, another class."""
    if adapter.rows:
        config.get_text_config().vocab_size = adapter.rows
    if adapter.classifies:
        if not heads.names_classifier(config):
            try:
                config.architectures = [heads.classifier_type(config).__name__]
            except ValueError as error:
                raise click.UsageError(f"{adapter.path}: {error}") from error
    describe_reward(config, adapter)
    return config


def describe_reward(config: PreTrainedConfig, adapter: Adapter) -> None:
    """Put into a configuration what the adapter's folder says of a reward model, whatever its base was."""
    vars(config).pop("reward_kind", None)
    for name, value in adapter.reward.items():
        setattr(config, name, value)
    if "id2label" in adapter.reward:
        config.label2id = {label: number for number, label in config.id2label.items()}


def attach(model: PreTrainedModel, adapter: Adapter, *, train: bool = False) -> Any:
    """The model in peft's wrapper, its layers changed by the adapter. Raises UsageError for one of another model.

    Its dropout is left out, as all models' is; with `train` its weights train, and no others.
    """
    import peft

    adapter.must_merge()
    if adapter.rows and adapter.rows != model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(adapter.rows, mean_resizing=False)
    if adapter.unties:
        untie(model)
    if adapter.ties and is_tied(model):
        raise click.UsageError(f"{adapter.path}: an adapter with ensure_weight_tying and LoRA on the embeddings that "
                               "its base has for a head too, which peft does not merge rightly; train one without")
    if hasattr(adapter.config, "lora_dropout"):
        adapter.config.lora_dropout = 0.0
    folder, names = str(adapter.folder), getattr(model, "names_in_whole", {})
    changed = [in_text(names, name).partition(".lora_") for name in (adapter.weights if names else ())]
    if own := {name for name, lora, _ in changed if lora and is_of_text(model, name)}:
        adapter.config.target_modules = own
    how = {"is_trainable": train, "key_mapping": names or None}
    try:
        adapted = peft.PeftModel.from_pretrained(model, folder, config=adapter.config, **how)
        fit = adapted.load_adapter(folder, "default", **how)  # again, to be told of what does not fit
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # the sizes are in a RuntimeError's second line
        lines = str(error).splitlines() or [type(error).__name__]
        kind = getattr(adapter.config.peft_type, "value", adapter.config.peft_type)
        which = "the adapter" if kind == "LORA" else f"an adapter of the kind {kind}, which"
        raise click.UsageError(f"{adapter.path}: {which} does not fit: {lines[:2][-1].strip()}") from error
    except Exception as error:  # a number in quotes, and the like
        faults.refuse(folder, (CONFIG,), partial(attach_shapes, model), error, f"peft {peft.__version__}")
        if not isinstance(error, TypeError | AttributeError):
            raise
        raise click.UsageError(f"{adapter.path}: {CONFIG} says what peft {peft.__version__} cannot make an adapter of "
                               f"({first_line(error)})") from error
    # A resized embedding that trained whole is there twice, once as peft had it in memory.
    strangers = [name for name in fit.unexpected_keys if ".modules_to_save." not in name
                 or name.removeprefix(INSIDE).replace(".modules_to_save.", ".") not in adapter.weights]
    strangers = [name for name in strangers if not names or is_of_text(model, name.removeprefix(INSIDE))]
    if wrong := [*strangers, *fit.missing_keys]:
        what = "has" if strangers else "lacks"
        raise click.UsageError(f"{adapter.path}: the adapter {what} {wrong[0]}, unlike a {type(model).__name__}")
    return adapted.eval()


def attach_shapes(model: PreTrainedModel, folder: str) -> None:
    """Do with the shapes of a model's weights alone what an adapter's configuration says; raises as peft does."""
    import peft

    with torch.device("meta"):
        peft.get_peft_model(type(model)(model.config), peft.PeftConfig.from_pretrained(folder))


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the embeddings."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def untie(model: PreTrainedModel) -> None:
    """Give a model whose output head is its embeddings a head of the same numbers: one changes without the other."""
    if is_tied(model):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def merge(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The plain model with the adapter's weights added in. Raises UsageError for one of another model.

    One that ZeRO 3 has in parts, to be asked, is left under its adapter.
    """
    adapted = attach(model, adapter)
    try:
        merged: PreTrainedModel = adapted if is_sharded(model) else adapted.merge_and_unload()
    except NotImplementedError as error:
        raise click.UsageError(f"{adapter.path}: an adapter by {adapter.config.peft_type.value}, which peft "
                               "does not merge into a base's weights") from error
    return merged.requires_grad_()  # peft froze it


def plain_name(name: str) -> str:
    """Of a weight in a model under adapters: what it is called in the plain model. Wrappers may be nested."""
    return name.replace(".base_layer", "").replace(".modules_to_save.default", "")


def changed_weights(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Of a model under adapters: the weights of the plain model that they change, each with its adapter's module.

    A linear layer's is its `weight`; experts are parameters of their module, with wrappers around one another.
    """
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            yield f"{plain_name(name)}.{getattr(module, 'parameter_name', 'weight')}", module
