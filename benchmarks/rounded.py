"""bf16 on a CPU without arithmetic for it: products in fp32 of the same bf16 operands, rounded to bf16 once.

A study in bf16 then goes on where torch's own products would take many times as long (docs/log.md, "A CPU without
bf16"). An accelerator accumulates in fp32 and rounds once, too; sums in another order can differ in the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from safediffusion.core.provenance import has_bf16

_ops = torch.ops.aten
_ATTENTION = _ops._scaled_dot_product_flash_attention_for_cpu
PRODUCTS = frozenset({
    *(_ops.mm.default, _ops.addmm.default, _ops.bmm.default, _ops.baddbmm.default),
    *(_ops.convolution.default, _ops.convolution_backward.default),
    *(_ATTENTION.default, _ops._scaled_dot_product_flash_attention_for_cpu_backward.default),
})  # fmt: skip


def products(precision: str) -> AbstractContextManager[object]:
    """Within it products are rounded where `precision` is bf16 and this CPU has no arithmetic for it."""
    return Rounded() if needed(precision) else nullcontext()


def needed(precision: str) -> bool:
    return precision == "bf16" and not torch.cuda.is_available() and not has_bf16()


class Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every product of bf16 tensors is one of fp32, rounded; all else is as it was."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func not in PRODUCTS or not any(_is_bf16(each) for each in args):
            return func(*args, **given)
        found = func(*tree_map_only(Tensor, _wide, args), **tree_map_only(Tensor, _wide, given))
        if func is _ATTENTION.default:
            return _narrow(found[0]), found[1]  # the second, of the softmax, is fp32 in bf16, too
        return tree_map_only(Tensor, _narrow, found)


def _is_bf16(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.bfloat16


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.dtype is torch.bfloat16 else value


def _narrow(value: Tensor) -> Tensor:
    return value.bfloat16() if value.dtype is torch.float32 else value
