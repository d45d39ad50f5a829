"""The order in which gradients lie in memory.

Some operations give gradients in an order of their own, whatever order they were given: a mean over positions, a strided
slice, a product of matrices. Where such a gradient meets others, addition, ReLU and batch norm have to read two orders at
once, several times slower, and hand the wrong one on.
"""

import torch
from torch import Tensor


def ordered(x: Tensor) -> Tensor:
    """The same (batch, channels, height, width), whose gradient is brought into its own order, channels last or first.

    A compiler chooses orders itself.
    """
    if not torch.compiler.is_compiling() and x.grad_fn is not None:  # in this order: a compiler knows no grad_fn
        order = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format

        def bring(gradient: Tensor | None) -> Tensor | None:
            return None if gradient is None else gradient.contiguous(memory_format=order)

        x.register_hook(bring)  # type: ignore[no-untyped-call]
    return x
