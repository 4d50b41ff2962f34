"""The bytes of living tensors: counted as they come and go; the experts' products have torch's own shapes."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alignlib.training.live_bytes import Live, grouped_product


def test_what_is_let_go_is_not_counted_on():
    with FakeTensorMode():
        known = torch.empty(50)
        with Live([known]) as live:
            first = known + 1
            assert live.now == live.most == 200
            second = torch.cat([first, first])
            del first
            third = second * 2
            assert (live.now, live.most) == (800, 800)
            del second, third
            assert (live.now, live.most) == (0, 800)


def test_views_are_no_bytes_of_their_own():
    with FakeTensorMode(), Live([]) as live:
        whole = torch.empty(50)
        assert whole[10:].view(4, 10).t() is not None and live.most == 200


@pytest.mark.parametrize(("left", "right"), [((6, 16), (2, 16, 24)), ((16, 8), (8, 24))])
def test_experts_products_have_the_shapes_that_torch_gives_them(left, right):
    offsets = torch.tensor([2, 6], dtype=torch.int32)
    one, other = torch.ones(left), torch.ones(right)
    wanted = torch.nn.functional.grouped_mm(one.bfloat16(), other.bfloat16(), offs=offsets)
    product = grouped_product(one, other, offsets)
    assert product.shape == wanted.shape and product.dtype == torch.float32
    assert grouped_product(one.bfloat16(), other.bfloat16(), offsets).dtype == wanted.dtype
