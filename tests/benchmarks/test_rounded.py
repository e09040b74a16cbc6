"""Products of bf16 where the CPU has none: the values, a whole network's, and when they are used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention

from benchmarks import rounded
from tests import small

PRODUCTS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "mm": (torch.mm, [(5, 7), (7, 3)]),
    "linear": (linear, [(5, 7), (3, 7), (3,)]),
    "bmm": (torch.bmm, [(2, 5, 7), (2, 7, 3)]),
    "convolution": (conv2d, [(2, 4, 6, 6), (3, 4, 3, 3), (3,)]),
    "attention": (scaled_dot_product_attention, [(2, 2, 5, 8)] * 3),
}


def _operands(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_those_of_fp32_rounded_once(name: str) -> None:
    product, shapes = PRODUCTS[name]
    given = _operands(shapes)
    wide = [each.detach().float().requires_grad_() for each in given]
    with rounded.Rounded():
        found = product(*given)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        slopes = torch.autograd.grad(found, given, weights)
    exact = product(*wide)
    exact_slopes = torch.autograd.grad(exact, wide, weights.float())
    assert found.dtype is torch.bfloat16 and torch.equal(found, exact.bfloat16())
    for slope, exact_slope in zip(slopes, exact_slopes, strict=True):
        assert slope.dtype is torch.bfloat16
        torch.testing.assert_close(slope.float(), exact_slope, rtol=2**-7, atol=2**-6)


def test_fp32_is_left_alone() -> None:
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    with rounded.Rounded():
        assert torch.equal(a @ b, torch.mm(a, b)) and (a @ b).dtype is torch.float32


def test_a_network_is_as_near_to_bf16_as_bf16_is_to_fp32(folders: small.Folders) -> None:
    unet = UNet2DConditionModel.from_pretrained(folders.model, subfolder="unet")

    def gradient(*, bf16: bool) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        size = unet.config.sample_size
        noisy = torch.randn(2, unet.config.in_channels, size, size, generator=generator)
        text = torch.randn(2, 4, unet.config.cross_attention_dim, generator=generator)
        unet.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = unet(noisy, 500, encoder_hidden_states=text).sample
        out.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])

    exact, native = gradient(bf16=False), gradient(bf16=True)
    with rounded.Rounded():
        mine = gradient(bf16=True)
    off = float((native - exact).norm())
    assert off > 0 and float((mine - native).norm()) <= 1.5 * off


@pytest.mark.parametrize(
    ("precision", "arithmetic", "needed"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_it_is_for_bf16_on_a_cpu_without(
    precision: str, arithmetic: bool, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounded, "has_bf16", lambda: arithmetic)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert rounded.needed(precision) is needed
    assert isinstance(rounded.products(precision), rounded.Rounded) is needed
