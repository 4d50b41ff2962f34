"""A folder's weights, all and no others, in the class that transformers has for it; none of its code is run."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.integrations import deepspeed
from transformers.utils.hub import cached_files

from alignlib import hub
from alignlib.model_names import parts
from alignlib.models import faults

# Constants that older checkpoints kept among their weights: causal masks, rotary frequencies, a version.
CONSTANTS = (".attn.bias", ".attention.bias", ".masked_bias", ".causal_mask", ".rotary_emb.inv_freq", ".version")

FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

Spare = Callable[[PreTrainedModel, set[str]], set[str]]


class AutoClass(Protocol):
    """One of transformers' Auto classes, each of which loads models for one purpose."""

    def from_pretrained(self, path: str, /, **settings: object) -> tuple[PreTrainedModel, dict[str, Any]]: ...


def nothing(model: PreTrainedModel, names: set[str]) -> set[str]:
    """No weight of a checkpoint is left out."""
    return set()


def language_head(model: PreTrainedModel, names: set[str]) -> set[str]:
    """Those of a checkpoint's names that are the output head's of a policy of the model's configuration."""
    with torch.device("meta"):
        policy = transformers.AutoModelForCausalLM.from_config(model.config, trust_remote_code=False)
    body = f"{policy.base_model_prefix}."
    head = {name: weight for name, weight in policy.state_dict().items() if not name.startswith(body)}
    return names & {*head, *revert_weight_conversion(policy, head)}  # GPT-NeoX's has another name in files


def read(auto: AutoClass, path: str, dtype: torch.dtype, fresh: tuple[str, ...] = (), spare: Spare = nothing,
         **settings: object) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of its weights that the checkpoint lacks: drawn anew. Raises UsageError.

    fresh  how names begin that it may lack
    spare  which of the checkpoint's weights that have no place in the model are left out on purpose
    """
    # `info` has mismatched sizes, rather than an error
    settings = {"dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True,
                "ignore_mismatched_sizes": True, **settings}
    try:
        model, info = in_either_attention(auto, path, settings)
    except click.UsageError:
        raise
    except Exception as error:  # whatever the files make transformers raise
        must_know_type(path)
        refuse(auto, path, settings, error)
        if isinstance(error, OSError | ValueError):
            raise click.UsageError(f"{path}: {first_line(error)}") from error
        raise
    with without_zero() as zero:
        if zero:  # what it loads it does not compare
            _, info = auto.from_pretrained(path, trust_remote_code=False, **settings, device_map="meta")
        must_fit(path, model, info, fresh, spare)
    return model, set(info["missing_keys"])


def in_either_attention(auto: AutoClass, path: str,
                        settings: dict[str, object]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with the attention that `settings` ask for, or with "eager", which they ask for from then on."""
    try:
        return auto.from_pretrained(path, trust_remote_code=False, **settings)
    except ValueError as error:
        if not wants_eager(error):
            raise
    settings["attn_implementation"] = "eager"
    return auto.from_pretrained(path, trust_remote_code=False, **settings)


def refuse(auto: AutoClass, path: str, settings: dict[str, object], error: Exception) -> None:
    """Raises UsageError where the error is one of the files that the model was to be loaded from."""
    found = parts(path)
    if found.gguf:
        return
    weights(path)
    shape = {**settings, "device_map": "meta"}  # in 4 bits as in others
    shape.pop("quantization_config", None)

    def on_meta(folder: str) -> None:
        with without_zero():
            in_either_attention(auto, f"{found.weights}@{folder}" if found.weights else folder, dict(shape))

    faults.refuse(found.folder, faults.OF_A_MODEL, on_meta, error)


def wants_eager(error: Exception) -> bool:
    """Whether a load failed only because the model's class does not have the attention it was asked for."""
    return isinstance(error, ValueError) and ("sdpa" in str(error) or "scaled_dot_product" in str(error))


def must_fit(path: str, model: PreTrainedModel, info: dict[str, Any], fresh: tuple[str, ...], spare: Spare) -> None:
    """Raises UsageError where the checkpoint, by the report of its load, is not the model's; a weight is named."""
    if missing := [key for key in info["missing_keys"] if not key.startswith(fresh)]:
        raise click.UsageError(f"{path}: the checkpoint lacks {len(missing)} weights, {min(missing)} the first")
    if info["mismatched_keys"]:
        key, shape, wanted = min(info["mismatched_keys"])
        raise click.UsageError(f"{path}: {key} is {list(shape)}, the configuration wants {list(wanted)}")
    buffers = {name for name, _ in model.named_buffers()}
    homeless = {key for key in info["unexpected_keys"] if not key.endswith(CONSTANTS)} - buffers
    homeless -= spare(model, homeless) if homeless else homeless
    if homeless:
        raise click.UsageError(f"{path}: the checkpoint has {len(homeless)} weights that a {type(model).__name__} has "
                               f"no place for, {min(homeless)} the first")


@contextmanager
def without_zero() -> Iterator[bool]:
    """In its body ZeRO 3 deals out no model that is loaded; whether it would."""
    config = deepspeed._hf_deepspeed_config_weak_ref and deepspeed._hf_deepspeed_config_weak_ref()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield config is not None
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)


def must_know_type(path: str) -> None:
    """Raises UsageError for a folder whose model type transformers lacks: its own code, if any, is never run."""
    try:
        config, _ = transformers.PreTrainedConfig.get_config_dict(path, local_files_only=True)  # by now it is here
    except (OSError, ValueError):
        return
    if (kind := config.get("model_type")) and kind not in transformers.CONFIG_MAPPING:
        raise click.UsageError(f"{path}: model type {kind}, which transformers {transformers.__version__} does not "
                               "have; a folder's own code is not run")


def weights(path: str) -> dict[str, Tensor]:
    """The tensors of a model's checkpoint, mapped rather than read, without running any code of it; {} where there is
    none, or a .gguf file, whose names are others.

    Raises UsageError for a file that is no checkpoint.
    """
    found = parts(path)
    apart = () if found.gguf else files(found.weights or found.folder)
    return {name: tensor for file in apart for name, tensor in tensors(file).items()}


def tensors(file: Path) -> dict[str, Tensor]:
    """Those of one file, mapped. Raises UsageError for a file that is no checkpoint."""
    if file.suffix != ".safetensors":
        return tensors_of(file, unpickled(file, "not a checkpoint", mapped=True))
    try:
        return load_file(file)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: an empty file has nothing to map
        raise click.UsageError(f"{file}: not a checkpoint that can be read safely ({faults.words(error)})") from error


def unpickled(file: Path, what: str, cure: str = "", *, mapped: bool = False) -> Any:
    """What torch.save wrote, on the CPU: data alone, nothing in it is run.

    Raises UsageError for a file that is damaged or more than data: that it is `what`, and the `cure`.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(file))
    except MemoryError:
        raise
    except Exception as error:  # whatever bytes that were never saved so make an unpickler raise
        said = f"{file}: {what} that can be read safely ({type(error).__name__}){cure and '; '}{cure}"
        raise click.UsageError(said) from error


def stored_dtype(path: str) -> torch.dtype:
    """What most of a checkpoint's numbers are kept in, of float32, bfloat16 and float16 the one that holds them."""
    counts: Counter[torch.dtype] = Counter()
    for weight in weights(path).values():
        if weight.is_floating_point():
            counts[weight.dtype] += weight.numel()
    most = max(counts, key=lambda dtype: counts[dtype], default=torch.float32)
    return torch.bfloat16 if most.itemsize < 2 else torch.float32 if most.itemsize > 4 else most


def cast(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same numbers in another type, on the CPU, in the same dict: memory never holds all of them twice."""
    return replace(weights, lambda weight: weight.to("cpu", dtype) if weight.is_floating_point() else weight)


def replace(weights: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The same dict with what `change` makes of each weight; what is one tensor under two names stays one."""
    places = {name: (weight.untyped_storage()._cdata, weight.storage_offset(), weight.shape)
              for name, weight in weights.items()}  # of all, before the memory of any is given back
    made: dict[Any, Tensor] = {}
    for name, place in places.items():
        if place not in made:
            made[place] = change(weights[name])
        weights[name] = made[place]
    return weights


def tensors_of(file: Path, saved: object) -> dict[str, Tensor]:
    """What torch.save wrote: tensors by their names, or as the DPO reference implementation's "state" among others."""
    state = saved["state"] if isinstance(saved, dict) and isinstance(saved.get("state"), dict) else saved
    if isinstance(state, dict) and state and all(isinstance(weight, Tensor) for weight in state.values()):
        return state
    what = f"a dict of {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else type(state).__name__
    raise click.UsageError(f"{file}: no weights by their names but {what}")


def files(path: str) -> list[Path]:
    """Those that hold the weights: a file, or of a folder, or a name on the Hub, the first kind of FILES there."""
    if Path(path).is_file():
        return [Path(path)]
    here = Path(path).exists() or not hub.answers()

    def find(names: list[str]) -> list[Path]:
        there = cached_files(path, names, local_files_only=here, _raise_exceptions_for_missing_entries=False,
                             _raise_exceptions_for_connection_errors=False)
        return [Path(file) for file in there or ()]

    first = next(filter(None, (find([name]) for name in FILES)), [])
    if not first or first[0].suffix != ".json":
        return first
    parts_of = faults.read(first[0]).get("weight_map")
    if not isinstance(parts_of, dict) or not all(isinstance(name, str) for name in parts_of.values()):
        raise click.UsageError(f"{first[0]}: weight_map: expected an object of files' names, got "
                               f"{faults.shown(parts_of)}")
    return find(sorted(set(parts_of.values())))


def first_line(error: BaseException) -> str:
    """Of its message; the error's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
