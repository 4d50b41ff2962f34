"""Models that are no folder: a .gguf file, weights that lie apart from their configuration (model_names.py)."""

import copy
import functools
import importlib.util
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
import torch
import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from alignlib import hub
from alignlib.model_names import WEIGHTS, Parts, is_path, parts, what_would_do
from alignlib.models import checkpoint
from alignlib.models.checkpoint import AutoClass, first_line

# What readers raise over bytes that are no .gguf file's.
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, RuntimeError, OverflowError, struct.error)
PART_OF = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
FREQUENCIES = "rope_freqs.weight"  # a tensor
STRETCHED = re.compile(r"^rope_factors_|\.rope\.scaling\.(factor|type)$")  # tensors and keys
LABELS = ("num_labels", "id2label", "label2id")
BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}  # no key says that there are any
SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}  # layers of the sizes (27B) whose queries are, as llama.cpp knows them


def must_be_there(path: str) -> None:
    """Raises UsageError for what is on this machine and no model; the line says what would be one."""
    if not path:
        raise click.UsageError("MODEL: the name given is empty")
    found = parts(path)
    if found.gguf is not None:
        return must_be_gguf(path, found)
    if found.weights and found.weights.endswith(".gguf"):
        raise click.UsageError(f"{path}: a .gguf file stands alone, without @: {found.weights}")
    weights = Path(found.weights or found.folder)
    if found.weights and not weights.exists() and (found.weights.count("/") != 1 or weights.suffix in WEIGHTS):
        raise click.UsageError(f"{found.weights}: no such file, nor can it be a name on the Hub")
    folder = Path(found.folder)
    if not folder.exists():
        if is_path(found.folder) or found.folder.count("/") > 1:  # none on the Hub has
            raise click.UsageError(f"{found.folder}: no such folder")
        return
    if not folder.is_dir():
        raise click.UsageError(f"{found.folder}: a file that is no model: a folder, a .gguf file or WEIGHTS@BASE is")
    if (folder / "config.json").is_file():
        return
    if found.weights == path:
        raise click.UsageError(f"{path}: weights alone; name the model that they began as, a folder or a name on the "
                               f"Hub: {path}@BASE")
    if (folder / "started.json").is_file():  # of run_folder.Run
        raise click.UsageError(f"{folder}: a training run that is not done, and no model yet: --resume ends it")
    raise click.UsageError(f"{found.folder}: not a model folder (it has no config.json){what_would_do(found.folder)}")


def not_on_the_hub(path: str, error: OSError) -> click.UsageError:
    """What to say of a name that the Hub does not give, where more can be said than its client's `error`."""
    folder = parts(path).folder
    checkpoint.must_know_type(folder)
    if "/" in folder and not Path(folder).exists() and Path(folder).parent.is_dir():
        return click.UsageError(f"{folder}: no such folder, nor is it to be had from the Hub")
    which, why = path if folder == path else f"{path}: {folder}", hub.forbidden() or first_line(error)
    return click.UsageError(f"{which}: no model folder, nor to be had from the Hub ({why})")


def loader_for(auto: AutoClass, path: str) -> AutoClass:
    """What loads the model at `path` for the purpose of `auto`: itself, of a folder or where it brings weights."""
    found = parts(path)
    if found.gguf is not None:
        return Gguf(auto)
    return Apart(auto) if found.weights is not None and isinstance(auto, type) else auto


# -- .gguf -----------------------------------------------------------------------------------------------------


@dataclass
class Gguf:
    """Loads .gguf files as an Auto class loads folders: to plain weights, of the type that is asked for."""

    auto: AutoClass

    def from_pretrained(self, path: str, /, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        from transformers import modeling_gguf_pytorch_utils as reader

        found, config = parts(path), gguf_config(path)
        config.update({name: settings.pop(name) for name in LABELS if name in settings})
        del settings["trust_remote_code"]  # it is never another
        reader.tqdm = functools.partial(reader.tqdm, disable=True)  # it shows a bar, whatever is said of bars
        try:
            model, info = self.auto.from_pretrained(
                found.folder, config=config, gguf_file=found.gguf, trust_remote_code=False, **settings,
                quantization_config=transformers.GgufConfig(dequantize=True))
        except UNREADABLE as error:
            if checkpoint.wants_eager(error):
                raise
            raise refused(path, error) from error
        info["unexpected_keys"] = {*info["unexpected_keys"], *unread(path, model)}
        # It is a plain model now, to be trained and saved as any other.
        vars(model.config).pop("quantization_config", None)
        model.hf_quantizer = None
        model.name_or_path = model.config.name_or_path = path
        return model, info


def unread(path: str, model: PreTrainedModel) -> set[str]:
    """The tensors of a file that the model has no place for, which transformers' older reader passes over in silence.

    The output head is called as transformers has it.
    """
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.integrations.gguf.utils import is_gguf_arch_supported

    kind, names = tensor_names(path)
    if is_gguf_arch_supported(kind):  # the newer reader reports them
        return set()
    processor = reader.TENSOR_PROCESSORS.get(kind, reader.TensorProcessor)()
    places = reader.get_gguf_hf_weights_map(model, processor)
    homeless = {name for name in names if not {name, name.removesuffix(".weight")} & places.keys()} - {FREQUENCIES}
    return {re.sub(r"^output\.", "lm_head.", name) for name in homeless}


def tensor_names(path: str) -> tuple[str, tuple[str, ...]]:
    """What kind of model a .gguf file that was found holds, and the names of its tensors."""
    from transformers.integrations.gguf import read_gguf_metadata

    found = parts(path)
    metadata, names = read_gguf_metadata(cached_file(found.folder, found.gguf, local_files_only=True))
    return metadata["general.architecture"], names


def must_be_gguf(path: str, found: Parts) -> None:
    """Raises UsageError where the file cannot be one that is read."""
    must_have_gguf(path)
    if part := PART_OF.search(path):
        must_be_whole(path, int(part[2]))
    if os.path.isabs(found.gguf or ""):
        if not Path(path).is_file():
            raise click.UsageError(f"{path}: no such file")
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise click.UsageError(f"{path}: not a .gguf file, whatever its name")


def must_be_whole(path: str, count: int) -> None:
    """Raises UsageError for a file that is one of several."""
    if count > 1:
        raise click.UsageError(f"{path}: one of {count} parts; llama-gguf-split --merge makes one file of them")


def must_have_gguf(path: str) -> None:
    """Raises UsageError where the package that reads .gguf files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise click.UsageError(f"{path}: .gguf files need the package gguf: pip install 'align-tools[gguf]'")


def gguf_config(path: str) -> PreTrainedConfig:
    """The configuration that a .gguf file holds. Raises UsageError."""
    return copy.deepcopy(read_gguf(path))


@functools.cache
def read_gguf(path: str) -> PreTrainedConfig:
    """As `gguf_config`; a file's vocabulary takes seconds to read."""
    from transformers.integrations.gguf import read_gguf_metadata

    found = parts(path)
    here = Path(found.folder).exists() or not hub.answers()
    try:
        file = cached_file(found.folder, found.gguf, local_files_only=here)
        metadata, names = read_gguf_metadata(file)
        must_be_whole(path, metadata.get("split.count", 1))
        must_know_positions(path, metadata, names)
        config = transformers.AutoConfig.from_pretrained(found.folder, gguf_file=found.gguf, local_files_only=here,
                                                         trust_remote_code=False)
        add_what_no_key_says(config, metadata["general.architecture"], names)
        if FREQUENCIES in names:
            set_frequencies(config, file)
    except (OSError, *UNREADABLE) as error:
        if Path(path).exists():
            raise refused(path, error) from error
        raise click.UsageError(f"{path}: no .gguf file, nor to be had from the Hub ({first_line(error)})") from error
    config.name_or_path = path
    vars(config).pop("_model_name_or_path", None)  # what its maker called it
    return config


def must_know_positions(path: str, metadata: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raises UsageError for a file whose positions are stretched in a way that transformers would pass over."""
    kind = metadata["general.architecture"]
    stretched = [name for name in (*metadata, *names) if STRETCHED.search(name)]
    if stretched and kind != "gpt-oss" and metadata.get(f"{kind}.rope.scaling.type") != "none":
        raise click.UsageError(f"{path}: its positions are stretched ({min(stretched)}), which transformers does not "
                               "read from .gguf files; the model's folder would do")


def add_what_no_key_says(config: PreTrainedConfig, kind: str, names: tuple[str, ...]) -> None:
    """Put into a configuration, in place, what follows from a file's tensors: transformers goes by its keys."""
    for switch, tensor in BIASES.items():
        if tensor in names and hasattr(config, switch):
            setattr(config, switch, True)
    if kind in SCALED_BY_WIDTH:
        wide = config.num_hidden_layers == SCALED_BY_WIDTH[kind]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if wide else config.head_dim


def set_frequencies(config: PreTrainedConfig, file: str) -> None:
    """Put a file's own rotary frequencies into its configuration, in place: transformers passes them over.

    llama.cpp divides the frequencies of Llama 3 by factors that stand in a tensor; "longrope" with these for its short
    and long factors does the same.
    """
    from gguf import GGUFReader

    factors = next(tensor.data for tensor in GGUFReader(file).tensors if tensor.name == FREQUENCIES).tolist()
    config.rope_parameters = {
        "rope_type": "longrope", "rope_theta": config.rope_parameters["rope_theta"], "short_factor": factors,
        "long_factor": factors, "attention_factor": 1.0,
        "original_max_position_embeddings": config.max_position_embeddings}


def drop_strangers(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Take tokens that the file does not have out of its tokenizer, in place: GPT-2's class brings an end of its own.

    rows: of the model, which are as many as the file has tokens.
    """
    said = orjson.loads(tokenizer.backend_tokenizer.to_str())
    own = [token for token in said["added_tokens"] if token["id"] < rows]
    if len(own) < len(said["added_tokens"]):  # tokenizers has no word for it
        tokenizer._tokenizer = Tokenizer.from_str(orjson.dumps({**said, "added_tokens": own}).decode())


def refused(path: str, error: Exception) -> click.UsageError:
    """What to say of a .gguf file over which a reader stumbled."""
    said = first_line(error).removesuffix(".")
    if "architecture" in said:
        return click.UsageError(f"{path}: {said} by transformers {transformers.__version__}; the model's folder may do")
    return click.UsageError(f"{path}: a .gguf file that is cut or damaged ({said})")


# -- weights alone ---------------------------------------------------------------------------------------------


@dataclass
class Apart:
    """Loads WEIGHTS@BASE as an Auto class loads folders."""

    auto: Any

    def from_pretrained(self, path: str, /, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Raises ValueError for a kind of model that transformers does not have."""
        del settings["trust_remote_code"]  # it is never another
        base, state = parts(path).folder, checkpoint.weights(path)
        if not state:
            raise click.UsageError(f"{path}: no weights there")
        named = {name: settings.pop(name) for name in LABELS if name in settings}
        config = transformers.AutoConfig.from_pretrained(base, trust_remote_code=False, **named)
        if type(config) not in self.auto._model_mapping:
            raise ValueError(f"transformers has no such model of a {config.model_type}")
        model, info = from_state(self.auto._model_mapping[type(config)], path, config, state, **settings)
        if ends := generation_config(path):
            model.generation_config = ends
        return model, info


def from_state(kind: type[PreTrainedModel], path: str, config: PreTrainedConfig, state: dict[str, torch.Tensor],
               **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of these weights, and the report of its load; `path` is what it is called by."""
    model, info = kind.from_pretrained(None, config=config, state_dict=state, trust_remote_code=False, **settings)
    model.name_or_path = model.config.name_or_path = path
    return model, info


def generation_config(path: str) -> transformers.GenerationConfig | None:
    """The generation configuration of a folder, or a Hub name, where it has one of its own."""
    found = parts(path)
    try:
        return None if found.gguf else transformers.GenerationConfig.from_pretrained(found.folder)
    except OSError:
        return None
