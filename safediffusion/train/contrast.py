"""Adapters that start from what sets unsafe prompts apart, instead of at random.

A LoRA layer adds B A x. With a random A, A x is nearly the same for every prompt, so what B can learn first is for
every prompt: it spoils benign pictures before it changes unsafe ones. Here A spans the directions in which the layer's
inputs on unsafe prompts have the most energy for that on benign ones:

    M_unsafe a = lambda (M_benign + ridge I) a          M = mean of x x^T over the inputs at the recorded steps

the generalised eigenvectors of the largest lambda ("common spatial patterns", Koles 1991, of second moments). Starting
from data as such is that of EVA (arXiv 2410.07170) and CorDA (arXiv 2406.05223); A and B are trained as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from safediffusion.collect.base import portions
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.models.banks import LoraBank
from safediffusion.models.policy import Policy

PROMPTS = 128  # of either label, one picture each
BATCH = 32
RIDGE = 1e-3  # of the benign inputs' mean energy: what hardly occurs in either is no contrast


def start_from_contrast(
    policy: Policy, unsafe: Sequence[Prompt], benign: Sequence[Prompt], plan: Plan, *, seed: int, fleet: Fleet
) -> dict[str, float]:
    """Set every adapter's A from up to PROMPTS prompts of either label, sampled by `plan`; before training only.

    Returns the first lambda of the layer where it is lowest and highest, and the network evaluations it took.
    UserError for an adapter of a convolution and for a rank above a layer's inputs.
    """
    bank = policy.bank
    assert isinstance(bank, LoraBank), "only adapters have an A to start from"
    assert unsafe and benign, "a contrast needs prompts of both labels"
    _check(bank)
    unsafe, benign = _chosen(unsafe), _chosen(benign)
    high, spent = input_moments(policy, unsafe, plan, seed=seed, fleet=fleet)
    low, more = input_moments(policy, benign, plan, seed=seed, fleet=fleet)
    found = {name: contrast(high[name], low[name], bank.spec.rank) for name in bank.down}
    bank.start_from({name: down for name, (down, _) in found.items()})
    first = [float(values[0]) for _, values in found.values()]
    return {"contrast/lowest": min(first), "contrast/highest": max(first), "unet_forwards": float(spent + more)}


def contrast(unsafe: Tensor, benign: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, D] and its lambdas [rank], largest first, from second moments [D, D] in float64.

    A x has on benign inputs the energy it would have with a Kaiming-uniform A, so the usual learning rates hold. The
    largest entry of a row is positive.
    """
    size = len(benign)
    mean = benign.trace() / size
    whiten = torch.linalg.inv(torch.linalg.cholesky(benign + RIDGE * mean * torch.eye(size, dtype=benign.dtype)))
    values, vectors = torch.linalg.eigh(whiten @ unsafe @ whiten.T)
    rows = (whiten.T @ vectors).T.flip(0)[:rank]
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return rows * sign * (mean / 3).sqrt(), values.flip(0)[:rank]


@torch.no_grad()
def input_moments(
    policy: Policy, prompts: Sequence[Prompt], plan: Plan, *, seed: int, fleet: Fleet
) -> tuple[dict[str, Tensor], int]:
    """Mean of x x^T [D, D] (float64, CPU) over each adapted layer's inputs at the steps `plan` records; forwards spent.

    Only the conditional branch counts. Processes share the prompts; all get the same moments.
    """
    bank = policy.bank
    assert isinstance(bank, LoraBank)
    sums: dict[str, Tensor] = {}
    batches = portions(torch.arange(len(prompts)), BATCH)
    recorded = len(plan.stochastic(policy.schedule))
    for rows in batches[fleet.rank :: fleet.world]:
        chosen = tuple(prompts[row] for row in rows.tolist())
        cond = policy.encode(chosen)
        noise = Noise(tuple((seed, f"contrast/{prompt.id}", 0) for prompt in chosen), policy.latent_shape)
        _, steps = denoise(policy, cond, noise, plan, record=True)
        assert steps is not None
        with ExitStack() as hooks:
            _listen(bank.layers, sums, hooks)
            for x, t in zip(steps.x.unbind(1), steps.t.unbind(1), strict=True):
                policy.predict(x, t, cond)
    every = {}
    for name, down in bank.down.items():
        own = sums.get(name, torch.zeros((down.shape[1], down.shape[1]), dtype=torch.float64))
        every[name] = fleet.gather_tensor(own[None]).sum(0)
    return {name: total / len(prompts) for name, total in every.items()}, forwards(plan, recorded, len(prompts))


def forwards(plan: Plan, recorded: int, prompts: int = 2 * PROMPTS) -> int:
    """Network evaluations of `input_moments`; guidance counts as two."""
    return prompts * (plan.steps * (1 if plan.guidance == 1.0 else 2) + recorded)


def _listen(layers: Mapping[str, nn.Module], sums: dict[str, Tensor], hooks: ExitStack) -> None:
    """Until `hooks` closes, add x x^T of every input row of every layer to `sums`."""

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        sums[name] = sums.get(name, 0) + (rows.T @ rows).double().cpu()

    for name, layer in layers.items():
        hook = layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0]))
        hooks.callback(hook.remove)


def _chosen(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Up to PROMPTS of them, spread evenly."""
    return prompts if len(prompts) <= PROMPTS else [prompts[i * len(prompts) // PROMPTS] for i in range(PROMPTS)]


def _check(bank: LoraBank) -> None:
    instead = "or set weights.init=random"
    for name, down in bank.down.items():
        if down.dim() != 2:
            raise UserError(
                f"weights.init is contrast, but '{name}' is a convolution; take it out of weights.targets, {instead}"
            )
        if down.shape[0] > down.shape[1]:
            raise UserError(
                f"weights.init is contrast, but '{name}' has {down.shape[1]} inputs for a rank of {down.shape[0]}; "
                f"lower weights.rank, {instead}"
            )
