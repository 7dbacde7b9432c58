"""Which kernel of attention gradients go through."""

import pytest
import torch
from torch.backends.cuda import flash_sdp_enabled

from mechspex.forward.attention_kernel import with_gradients


@pytest.mark.parametrize(
    ("dtype", "length", "device", "hides", "plain"),
    [
        (torch.bfloat16, 14, "cpu", False, True),
        (torch.float16, 14, "cpu", False, True),
        (torch.float32, 14, "cpu", False, False),
        (torch.float32, 14, "cpu", True, False),
        (torch.bfloat16, 500, "cpu", False, False),
        (torch.bfloat16, 14, "cuda", False, False),
        (torch.float32, 14, "cuda", True, True),
    ],
)
def test_plain_products_where_kernels_are_slow_or_refuse(dtype, length, device, hides, plain):
    with with_gradients(torch.device(device), length, dtype, hides=hides):
        assert flash_sdp_enabled() is not plain
    assert flash_sdp_enabled()
