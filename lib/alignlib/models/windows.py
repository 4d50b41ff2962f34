"""How far back the layers of a model look: a sliding window is no context, its text goes on behind it.

    position   0 1 2 3 4 5      a query at 5 under a window of 3 looks at 3, 4, 5; in chunks of 4 at 4, 5

Layers of one kind have one window, by the names of transformers' `layer_types`; a model may have several kinds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
SIZES = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}  # where a configuration says how large


@dataclass(frozen=True)
class Window:
    """Which of the tokens before it one looks at, itself included: the last `size`, or those since its chunk began."""

    size: int
    chunked: bool = False

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether positions `query` may look as far back as positions `key`: bool, of their broadcast shape."""
        return query // self.size == key // self.size if self.chunked else query - key < self.size

    def may_see(self, first: Tensor, last: Tensor) -> Tensor:
        """Whether a query from position `first` on can look as far back as some key up to `last`."""
        return first // self.size <= last // self.size if self.chunked else first - last < self.size


Windows = dict[str, Window | None]  # by kind of layer; None: a layer looks at all that came before


def layer_windows(config: PreTrainedConfig) -> list[tuple[str, Window | None]]:
    """The kind of each layer and its window, in the layers' order."""
    config = config.get_text_config()
    sizes = {kind: getattr(config, name, None) for kind, name in SIZES.items()}
    windows: Windows = {kind: Window(size, kind == CHUNKED) if size else None for kind, size in sizes.items()}
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # all are alike
        kinds = [next((kind for kind, window in windows.items() if window), FULL)] * config.num_hidden_layers
    return [(kind, windows.get(kind)) for kind in kinds]


def model_windows(config: PreTrainedConfig) -> Windows:
    """The windows of the model's kinds of layers."""
    return dict(layer_windows(config))


def ignores_masks(config: PreTrainedConfig) -> str:
    """Why a mask cannot keep tokens of a row apart in all of the model's layers; "" where nothing speaks against it."""
    config = config.get_text_config()
    if "local" in (getattr(config, "attention_layers", None) or ()):  # GPT-Neo's
        return "its windows count a row's columns"
    others = {kind for kind, _ in layer_windows(config)} - {FULL, *SIZES, "mlp", "moe"}
    return f"its {min(others)} layers read a row from end to end" if others else ""


@contextmanager
def small_windows(config: PreTrainedConfig, size: int) -> Iterator[None]:
    """In its body a model of this configuration has windows of so many tokens, where it has any.

    Transformers looks its masks up in the configuration at every pass: what a window does shows in a short text.
    """
    config = config.get_text_config()
    whole_sizes = {name: getattr(config, name, None) for name in SIZES.values()}
    whole_sizes = {name: whole for name, whole in whole_sizes.items() if whole}
    try:
        for name in whole_sizes:
            setattr(config, name, size)
        yield
    finally:
        for name, whole in whole_sizes.items():
            setattr(config, name, whole)
