"""Matrix products with weights that no longer change, on the CPU: weights laid out once as oneDNN reads them.

A plain product lays the weights out each time it is asked for, which for the few rows of a decoding step costs more
than the product itself. PyTorch's compiler has it done once, by the operators that are used here.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class LaidOutLinear(nn.Module):
    """A linear layer whose weight is laid out: x [..., in] -> [..., out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("laid", torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()), persistent=False)
        self.register_buffer("bias", bias if bias is None else bias.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.laid, self.bias, "none", [], "")


@torch.inference_mode()
def lay_out(model: nn.Module) -> None:
    """Have the model's linear layers laid out, in place; it can then be asked, but neither trained nor saved.

    Those that share their weight with an embedding stay, a reward model's head, which is computed in float32, too; and
    all of them where PyTorch has no such operators or they give other numbers.
    """
    first = next(model.parameters())
    if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.bfloat16) or not works(first.dtype):
        return
    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.Linear and id(layer.weight) not in shared:
                setattr(parent, name, LaidOutLinear(layer.weight, layer.bias))
            elif type(layer) is Conv1D and id(layer.weight) not in shared:  # GPT-2's: [in, out]
                setattr(parent, name, LaidOutLinear(layer.get_parameter("weight").T, layer.get_parameter("bias")))


def works(dtype: torch.dtype) -> bool:
    """Whether the operators are there and give the numbers of a plain product."""
    if not torch.backends.mkldnn.is_available():
        return False
    weight, x = (torch.linspace(0, 100, rows * 24).sin().view(rows, 24).to(dtype) for rows in (40, 5))
    try:
        product = LaidOutLinear(weight, weight[:, 0])(x)
    except (AttributeError, RuntimeError):  # they are PyTorch's own business, and may move
        return False
    plain = nn.functional.linear(x, weight, weight[:, 0])
    return torch.allclose(product, plain, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)
