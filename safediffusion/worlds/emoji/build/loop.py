"""The one training loop of the world's models: seeded, logged, resumable, bounded by steps.

Under torchrun every process draws its own batches and the gradients are averaged; process 0 saves and logs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from safediffusion.core.fleet import Fleet

Step = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Hyper-parameters of one fit. The learning rate warms up, stays, and falls as a half cosine over all steps."""

    name: str
    steps: int
    lr: float
    weight_decay: float = 0.01
    warmup: int = 100
    max_norm: float = 1.0
    ema: float = 0.0
    seed: int = 0
    save_every: int = 200
    log_every: int = 25


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lr_at(fit: Fit, step: int) -> float:
    warm = min(1.0, (step + 1) / fit.warmup)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(step / fit.steps * torch.pi)).item())
    return fit.lr * warm * max(cosine, 0.02)


def run(model: nn.Module, step_fn: Step, fit: Fit, folder: Path) -> nn.Module:
    """Fits `model` in place and returns its EMA (itself without one). Goes on from the last save in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    fleet, params = Fleet.current(), dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        params.values(), lr=fit.lr, weight_decay=fit.weight_decay, betas=(0.9, 0.98), fused=True
    )
    average = {name: p.detach().clone() for name, p in params.items()}
    saved = folder / f"{fit.name}.safetensors"
    start = _load(saved, model, average, optimizer) if saved.exists() else 0
    began = time.monotonic()
    with (folder / f"{fit.name}.jsonl").open("a") as log:
        for step in range(start, fit.steps):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(fit, step)
            generator = torch.Generator().manual_seed((fit.seed * 1_000_003 + step) * 64 + fleet.rank)
            loss, terms = step_fn(step, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            fleet.mean_gradients(params.values())
            norm = nn.utils.clip_grad_norm_(params.values(), fit.max_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"{fit.name}: gradient norm {norm.item()} at step {step}")
            optimizer.step()
            decay = min(fit.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), [p.detach() for p in params.values()], 1 - decay)
            if fleet.is_main and (step % fit.log_every == 0 or step == fit.steps - 1):
                row = {"step": step, "loss": loss.item(), "norm": norm.item(), **terms}
                row["s"] = round(time.monotonic() - began, 1)
                print(json.dumps(row), file=log, flush=True)
                print(fit.name, json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
            if fleet.is_main and ((step + 1) % fit.save_every == 0 or step == fit.steps - 1):
                _save(saved, model, average, optimizer, step + 1)
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(average[name])
    return model.eval()


def _save(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int
) -> None:
    tensors = {f"model/{k}": value for k, value in model.state_dict().items()}
    tensors |= {f"ema/{k}": value for k, value in average.items()}
    for name, p in model.named_parameters():
        tensors |= {f"adam/{key}/{name}": value for key, value in optimizer.state[p].items()}
    tensors["step"] = torch.tensor(step)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _load(path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path, device=str(device()))
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    for name, p in model.named_parameters():
        average[name].copy_(tensors[f"ema/{name}"])
        state = {key: tensors[f"adam/{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[p] = state | {"step": state["step"].float().cpu()}
    return int(tensors["step"])
