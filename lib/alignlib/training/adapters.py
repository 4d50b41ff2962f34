"""Adapters: what --lora trains, what a checkpoint holds of it, and the folder that --save-adapter leaves.

A model is its own reference before training begins. A new adapter does nothing then, and one that MODEL is has what it
came with: al-train-exo takes the reference's numbers at that time, and no second model is there.
"""

import copy
from pathlib import Path
from typing import Any

import click
import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from alignlib import ranks
from alignlib.models import adapters, checkpoint, load
from alignlib.models.adapters import Adapter
from alignlib.models.checkpoint import first_line
from alignlib.models.policy import Model, RewardModel
from alignlib.models.precision import keep_narrow, must_have_bitsandbytes
from alignlib.models.token_rewards import TokenReward
from alignlib.records.disk import even_modes
from alignlib.training.recipe import Recipe, linear_bits

# What --lora's adapters are made of, and what needs them.
SHAPE = ("lora_alpha", "lora_targets")
NEEDS = (*SHAPE, "lora_dropout", "lora_lr", "load_4bit", "save_adapter")
# Of a LoraConfig whose adapter is B A beside a weight, and nothing else.
PLAIN = {"use_dora": False, "bias": "none", "trainable_token_indices": None, "use_qalora": False, "arrow_config": None,
         "kasa_config": None, "velora_config": None, "monteclora_config": None, "use_bdlora": None}


def adapter_to_train(path: str, recipe: Recipe, reward: bool) -> Adapter | None:
    """The adapter that MODEL is, in which training goes on; None for a whole model, to which --lora adds one.

    reward: whether a reward model is trained: a policy's adapter is merged then, to begin with. Raises UsageError for
    options that do not go together.
    """
    given = adapters.find(path)
    adapter = given if given and given.classifies == reward else None
    if adapter:
        must_go_on(adapter, recipe)
    elif not recipe.lora:
        for name in NEEDS:
            if getattr(recipe, name):
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --lora")
    if recipe.save_adapter and given and not adapter:
        raise click.UsageError(f"--save-adapter: {path} is an adapter of a policy, and merged into its base to begin "
                               "with; a base needs a folder of its own")
    if recipe.load_4bit:
        must_narrow(recipe)
    if recipe.lora_lr and not (reward or adapter and adapter.config.modules_to_save):
        raise click.UsageError("--lora-lr does nothing where adapters alone train: their rate is --lr")
    return adapter


def must_go_on(adapter: Adapter, recipe: Recipe) -> None:
    """Raises UsageError where training does not go on in the adapter that MODEL is."""
    adapter.must_merge()
    config = adapter.config
    odd = [name for name, plain in PLAIN.items() if (getattr(config, name, plain) or None) != (plain or None)]
    if config.peft_type != "LORA" or odd:
        what = f"with {odd[0]}" if odd else f"by {config.peft_type.value}"
        raise click.UsageError(f"{adapter.path}: an adapter {what}; training goes on in plain LoRA only")
    if recipe.lora not in (None, config.r):
        raise click.UsageError(f"--lora {recipe.lora}: {adapter.path} is an adapter of rank {config.r}, in which "
                               "training goes on; leave out --lora")
    for name in SHAPE:
        if getattr(recipe, name):
            raise click.UsageError(f"--{name.replace('_', '-')}: {adapter.path} is an adapter, which has its own")


def must_narrow(recipe: Recipe) -> None:
    """Raises UsageError where --load-4bit cannot be."""
    if not recipe.save_adapter:
        raise click.UsageError("--load-4bit: a base in 4 bits takes no adapter in; give --save-adapter")
    if recipe.zero is not None or recipe.offload != "none" or recipe.deepspeed or ranks.size() > 1:
        raise click.UsageError("--load-4bit does not go with DeepSpeed: one process trains")
    must_have_bitsandbytes()


def add_adapters(model: Model, recipe: Recipe, adapter: Adapter | None = None) -> None:
    """Freeze the model and put adapters on its linear layers, where --lora asks for them; `adapter`: like that one.

    A model that is under its adapter already is left so. --lora-dropout is on while the model is in training mode, and
    so neither in the reference's numbers nor in evaluations. Raises UsageError.
    """
    if model.model is model.core and (adapter or recipe.lora):
        import peft

        config = adapter.config if adapter else new_config(model, recipe)
        config.inference_mode = False
        torch.manual_seed(recipe.seed)
        try:
            model.model = peft.get_peft_model(model.core, config)
        except ValueError as error:  # of some names in --lora-targets: experts keep two of them in one weight
            raise click.UsageError(f"--lora-targets: {first_line(error)}") from error
        model.core = model.model.get_base_model()
    if model.model is not model.core:
        if not recipe.save_adapter:
            must_take_in(model)
        set_dropout(model, recipe.lora_dropout)
        model.model.eval()


def plan_adapters(paper: Model, recipe: Recipe, adapter: Adapter | None = None) -> None:
    """For --plan: a model without numbers, as it is loaded and put under adapters."""
    if paper.autocast and linear_bits(recipe, frozen=bool(recipe.lora or adapter)) == 16:
        keep_narrow(paper.core, paper.autocast)
    add_adapters(paper, recipe, adapter)


def new_config(model: Model, recipe: Recipe) -> Any:
    """peft's configuration of the adapters that --lora asks for. Raises UsageError."""
    import peft

    targets = "all-linear" if recipe.lora_targets in (None, "all-linear") else must_be_linear(model, recipe)
    return peft.LoraConfig(
        r=recipe.lora, lora_alpha=2 * (recipe.lora or 0) if recipe.lora_alpha is None else recipe.lora_alpha,
        target_modules=targets, modules_to_save=head_names(model) or None)


def head_names(model: Model) -> list[str]:
    """The parts of a reward model that come after its transformer: they train whole. A policy's head does not train."""
    return [name for name, part in model.core.named_children() if model.head_trains
            and part is not model.core.base_model and any(isinstance(layer, nn.Linear) for layer in part.modules())]


def must_be_linear(model: Model, recipe: Recipe) -> list[str]:
    """The names of --lora-targets. Raises UsageError for one that no linear layer has; heads are none."""
    body = model.core.base_model
    linear = {name.rpartition(".")[2] for name, layer in body.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    names = [name.strip() for name in (recipe.lora_targets or "").split(",")]
    if unknown := [name for name in names if name not in linear]:
        raise click.UsageError(f"--lora-targets: {unknown[0]!r} is no linear layer of a {type(model.core).__name__}; "
                               f"there are all-linear, or some of {','.join(sorted(linear))}")
    return names


def must_take_in(model: Model) -> None:
    """Raises UsageError where a layer's adapter has no weight to be merged into, before anything is trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = {adapters.plain_name(name) for name in model.core.state_dict()}
    merging = {id(module) for name, module in adapters.changed_weights(model.core) if name in plain}
    for name, module in model.core.named_modules():
        if isinstance(module, BaseTunerLayer) and id(module) not in merging:
            raise click.UsageError(f"{name}: its adapter cannot be merged into a {type(model.core).__name__}; give "
                                   "--save-adapter, or --lora-targets without it")


def set_dropout(model: Model, share: float) -> None:
    """Have the adapters leave out so much of what they read, in training. Raises UsageError for experts'."""
    if share and any(hasattr(module, "parameter_name") for _, module in adapters.changed_weights(model.core)):
        raise click.UsageError(f"--lora-dropout: adapters on the experts of a {type(model.core).__name__} leave "
                               "nothing out (peft has none for them); give --lora-targets q_proj,v_proj, say")
    for module in model.model.modules():
        if isinstance(dropout := getattr(module, "lora_dropout", None), nn.ModuleDict):
            dropout["default"] = nn.Dropout(share) if share else nn.Identity()
    model.model.peft_config["default"].lora_dropout = share


def trained_weights(model: Model) -> dict[str, Tensor]:
    """What trains, where that is not the whole model: for a checkpoint, whose folder may hold the merged weights."""
    if model.model is model.core:
        return {}
    return {name: weight.detach().cpu() for name, weight in model.model.named_parameters() if weight.requires_grad}


# -- saving --------------------------------------------------------------------------------------------------


def folder_weights(model: Model, recipe: Recipe) -> dict[str, Tensor]:
    """What the model's folder holds: the whole model, or with --save-adapter the adapter, by peft's names.

    Of a model in parts on several ranks every rank must call this; the first alone gets what was in parts.
    """
    if not recipe.save_adapter:
        return load.merged_weights(model)
    import peft

    weights = load.full_state_dict(model.model)
    if not ranks.first():
        return {}
    known = load.load_config(model.core.name_or_path).get_text_config().vocab_size
    resized = known != model.core.config.get_text_config().vocab_size
    return peft.get_peft_model_state_dict(model.model, weights, save_embedding_layers=resized)


def unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, as safetensors takes them: a memory of its own for what is there under two names (embeddings)."""
    seen: set[int] = set()
    apart = {}
    for name, weight in weights.items():
        memory = weight.untyped_storage().data_ptr()
        apart[name] = weight.contiguous().clone() if memory in seen else weight.contiguous()
        seen.add(memory)
    return apart


def save(model: Model, folder: Path, recipe: Recipe, weights: dict[str, Tensor] | None = None,
         dtype: torch.dtype | None = None) -> None:
    """The model's folder, with `folder_weights` or others of the same names, in `dtype` if not in their own."""
    weights = weights or folder_weights(model, recipe)
    if not recipe.save_adapter:
        return load.save(model, folder, weights, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    config, base = copy.copy(model.model.peft_config["default"]), model.core.name_or_path
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).exists() else base
    config.task_type = "SEQ_CLS" if isinstance(model, RewardModel) else "CAUSAL_LM"
    config.inference_mode, config.auto_mapping = True, None
    for name in ("target_modules", "target_parameters"):
        if isinstance(names := getattr(config, name, None), set):
            setattr(config, name, sorted(names))  # the same file each time
    config.save_pretrained(str(folder))
    weights = checkpoint.cast(weights, dtype) if dtype else weights
    save_file(unshared(weights), folder / adapters.WEIGHTS, metadata={"format": "pt"})
    model.tokenizer.save_pretrained(folder)
    if isinstance(model, RewardModel | TokenReward):
        names = adapters.OF_A_REWARD if isinstance(model, RewardModel) else ("reward_kind",)
        said = {name: value for name in names if (value := getattr(model.core.config, name, None)) is not None}
        (folder / adapters.REWARD).write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    even_modes(folder, adapters.CONFIG)
    return None
