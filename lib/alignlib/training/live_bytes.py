"""The bytes of tensors that live at once, counted while a pass is taken with tensors that have no numbers."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that come into being inside it and are still there: now, and at most."""

    def __init__(self, known: list[Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]  # torch's, which has no types
        self.now = self.most = 0
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if function is torch.ops.aten._grouped_mm.default:
            result = grouped_product(*args, **(kwargs or {}))
        else:
            result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        return result

    def _gone(self, key: int, size: int) -> None:
        self.seen.remove(key)
        self.now -= size


def grouped_product(left: Tensor, right: Tensor, offsets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A tensor as aten._grouped_mm makes for a mixture's experts; on paper torch makes it in bfloat16 alone.

    left [S, I] in groups of rows, right [E, I, O] -> [S, O]; left [I, S], right [S, O], S in groups -> [E, I, O].
    """
    if right.dim() == 3:
        return left.new_empty(left.shape[0], right.shape[2])
    return left.new_empty(offsets.shape[0], left.shape[0], right.shape[1])
