"""Blocks whose activations are computed again in the backward pass, where a network has several sets of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .policy import Weights


class Switched(Protocol):
    """A bank that computes with one of its sets at a time, in one network."""

    @property
    def active(self) -> Weights: ...

    def activate(self, which: Weights) -> nn.Module: ...


def forgetful(bank: Switched) -> Callable[..., Any]:
    """What diffusers' networks take for gradient checkpointing: a block comes back by the weights of its forward.

    In the backward pass others may be active: where gradients go through the reference, too, the adapters are on again.
    """

    def block_again(block: Callable[..., Any], *args: Any) -> Any:
        if torch.compiler.is_compiling():  # which cannot trace a context; config.rules refuses where it would be needed
            return checkpoint(block, *args, use_reentrant=False)
        which = bank.active

        @contextmanager
        def as_then() -> Iterator[None]:
            now = bank.active
            bank.activate(which)
            try:
                yield
            finally:
                bank.activate(now)

        return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), as_then()))

    return block_again
