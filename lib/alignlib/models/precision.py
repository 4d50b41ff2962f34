"""The bits of a model's numbers: --dtype, which computes; and what linear layers that do not train are kept in."""

import importlib.util
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from alignlib.models import heads

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDE = 256  # hidden size; on a CPU narrower models sample slower in bf16 than in fp32


def dtype_for(name: str, device: torch.device, config: PreTrainedConfig | None = None) -> torch.dtype:
    """ "auto" is bf16 on a GPU, and on a CPU that has units for it where the model is WIDE; fp32 elsewhere."""
    if name == "auto":
        wide = getattr(config and config.get_text_config(), "hidden_size", 0) >= WIDE
        name = "bf16" if device.type != "cpu" or wide and has_bf16() else "fp32"
    return DTYPES[name]


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself, by a torch with oneDNN: emulated it is slower than fp32."""
    units = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(units.get(name) for name in ("avx512_bf16", "amx_bf16"))


# -- linear layers that do not train -------------------------------------------------------------------------


def frozen_linear(bits: int, dtype: torch.dtype, device: torch.device, adapter: Any = None) -> dict[str, Any]:
    """Settings of load.load that keep a model's linear layers, multiplied in `dtype`, in so many bits.

    4      QLoRA's NF4 (arXiv 2305.14314), by bitsandbytes
    16     `dtype`, where they lose nothing by it (keep_narrow)
    32     all as it is

    adapter: one of peft's configurations, whose adapter the model gets; what it trains whole stays wide.
    Raises UsageError.
    """
    if bits == 4:
        return four_bits(device, dtype)
    if bits == 32 or dtype == torch.float32:
        return {}
    return {"narrow": partial(keep_narrow, dtype=dtype, but=getattr(adapter, "modules_to_save", None) or ())}


def keep_narrow(model: PreTrainedModel, dtype: torch.dtype, but: Collection[str] = ()) -> None:
    """Keep linear layers in the 16 bits that they are multiplied in, where their numbers lose nothing by it.

    Autocast would cast them for each pass, and keep each cast for the way back: three times the bytes, the same result.
    but: the last part of the names of those that stay as they are. Weights without numbers lose nothing where the
    configuration says that they are stored so.
    """
    for name, layer in model.base_model.named_modules():
        if type(layer) is nn.Linear and name.rpartition(".")[2] not in but:
            narrow = layer.weight.detach().to(dtype)
            if (model.config.dtype == dtype if narrow.is_meta else
                    torch.equal(narrow.to(layer.weight.dtype), layer.weight)):
                layer.weight.data = narrow


@contextmanager
def float32_products(model: PreTrainedModel) -> Iterator[None]:
    """In its body linear layers that are kept narrow in a float32 model multiply in float32, as if they were wide."""
    narrow = [layer for layer in model.modules()
              if type(layer) is nn.Linear and layer.weight.dtype in (torch.bfloat16, torch.float16)]
    if narrow and model.dtype != torch.float32:  # all of it is narrow
        narrow = []
    for layer in narrow:
        vars(layer)["forward"] = partial(widened, layer)
    try:
        yield
    finally:
        for layer in narrow:
            del vars(layer)["forward"]


def widened(layer: nn.Linear, inputs: Tensor) -> Tensor:
    return functional.linear(inputs, layer.weight.float(), layer.bias)


def four_bits(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Settings of from_pretrained for linear layers in 4 bits, computed in `dtype`."""
    must_have_bitsandbytes()
    skipped = ["lm_head", "embed_out", *heads.HEADS]  # heads stay as they are
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped)
    return {"quantization_config": settings, "device_map": {"": device}}


def keep_unpacked(model: nn.Module) -> None:
    """Have a model whose linear layers are in 4 bits keep them so on CPUs.

    bitsandbytes packs them anew when they are first asked, for bf16 products through which no gradient goes.
    """
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def must_have_bitsandbytes() -> None:
    """Raises UsageError where the package is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise click.UsageError("--load-4bit needs bitsandbytes: pip install 'align-tools[4bit]'")
