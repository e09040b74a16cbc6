"""Adapters that start from what sets unsafe prompts apart, instead of at random.

A LoRA layer adds B A x. With a random A, A x is nearly the same for every prompt, so what B can learn first is for
every prompt: it spoils benign pictures before it changes unsafe ones. Here A spans the directions in which the layer's
inputs on unsafe prompts have the most energy for that on benign ones:

    M_unsafe a = lambda (M_benign + ridge I) a          M = mean of x x^T over the inputs at the recorded steps

the generalised eigenvectors of the largest lambda ("common spatial patterns", Koles 1991, of second moments). Starting
from data as such is that of EVA (arXiv 2410.07170) and CorDA (arXiv 2406.05223); A and B are trained as usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from safediffusion.collect.base import portions
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, Record, denoise
from safediffusion.models.banks import LoraBank
from safediffusion.models.policy import Policy

PROMPTS = 128  # of either label, one picture each
RIDGE = 1e-3  # of the benign inputs' mean energy: what hardly occurs in either is no contrast


def check_adapters(policy: Policy) -> None:
    """UserError for an adapter that cannot start from a contrast: of a convolution, or of a rank above its inputs."""
    instead = "or set weights.init=random"
    for name, down in _bank(policy).down.items():
        if down.dim() != 2:
            raise UserError(
                f"weights.init is contrast, but '{name}' is a convolution; take it out of weights.targets, {instead}"
            )
        if down.shape[0] > down.shape[1]:
            raise UserError(
                f"weights.init is contrast, but '{name}' has {down.shape[1]} inputs for a rank of {down.shape[0]}; "
                f"lower weights.rank, {instead}"
            )


def start_from_contrast(
    policy: Policy, prompts: Sequence[Sequence[Prompt]], plan: Plan, *, batch: int, seed: int, fleet: Fleet
) -> dict[str, float]:
    """Set A of every adapter (`check_adapters` first), from one picture a prompt sampled by `plan`, `batch` at a time.

    `prompts` are the unsafe and the benign ones. Returns the first lambda of the layer where it is lowest and highest,
    and the network evaluations it took.
    """
    unsafe, benign = prompts
    assert unsafe and benign, "a contrast needs prompts of both labels"
    bank = _bank(policy)
    moments = [input_moments(policy, each, plan, batch=batch, seed=seed, fleet=fleet) for each in prompts]
    found = {name: directions(moments[0][name], moments[1][name], bank.spec.rank) for name in bank.down}
    bank.start_from({name: fleet.broadcast(rows.float()) for name, (rows, _) in found.items()})
    first = [float(values[0]) for _, values in found.values()]
    spent = forwards(plan, len(plan.stochastic(policy.schedule)), prompts=len(unsafe) + len(benign))
    return {"contrast/lowest": min(first), "contrast/highest": max(first), "unet_forwards": float(spent)}


def directions(unsafe: Tensor, benign: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, D] and its lambdas [rank], largest first, from second moments [D, D] in float64.

    Each component of A x has on benign inputs at most the energy that a Kaiming-uniform A would give it, and on unsafe
    ones lambda times as much as that. The largest entry of a row is positive.
    """
    mean = benign.trace() / len(benign)
    whiten = torch.linalg.inv(torch.linalg.cholesky(benign + RIDGE * mean * torch.eye(len(benign)).to(benign)))
    values, vectors = torch.linalg.eigh(whiten @ unsafe @ whiten.T)
    rows = (whiten.T @ vectors).T.flip(0)[:rank]
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return rows * sign * (mean / 3).sqrt(), values.flip(0)[:rank]


@torch.no_grad()
def input_moments(
    policy: Policy, prompts: Sequence[Prompt], plan: Plan, *, batch: int, seed: int, fleet: Fleet
) -> dict[str, Tensor]:
    """By adapted layer [D, D] in float64: x x^T summed over a prompt's inputs at the recorded steps, mean of prompts.

    Only the conditional branch counts. Processes share the prompts; all get the same moments.
    """
    bank = _bank(policy)
    sums = {
        name: torch.zeros((down.shape[1],) * 2, dtype=torch.float64, device=down.device)
        for name, down in bank.down.items()
    }
    for rows in portions(torch.arange(len(prompts)), batch)[fleet.rank :: fleet.world]:
        chosen = tuple(prompts[row] for row in rows.tolist())
        cond = policy.encode(chosen)
        noise = Noise(tuple((seed, f"contrast/{prompt.id}", 0) for prompt in chosen), policy.latent_shape)
        _, steps = denoise(policy, cond, noise, plan, record=Record())
        assert steps is not None
        with _listening(bank.adapted, sums):
            for x, t in zip(steps.x.unbind(1), steps.t.unbind(1), strict=True):
                policy.predict(x, t, cond)
    return {name: fleet.sum(own) / len(prompts) for name, own in sums.items()}


def forwards(plan: Plan, recorded: int, *, prompts: int) -> int:
    """Network evaluations of `start_from_contrast`; guidance counts as two."""
    return prompts * (plan.steps * plan.branches + recorded)


@contextmanager
def _listening(layers: Mapping[str, nn.Module], sums: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block x x^T of every input row of every layer is added to `sums`, in float32 under autocast too."""

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        with torch.autocast(rows.device.type, enabled=False):
            sums[name].add_(rows.T @ rows)

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0]))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _bank(policy: Policy) -> LoraBank:
    assert isinstance(policy.bank, LoraBank), "only adapters have an A to start from"
    return policy.bank
