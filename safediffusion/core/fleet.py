"""The processes of one run. Everything distributed goes through a Fleet; nobody else imports torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .errors import UserError


@dataclass(frozen=True, slots=True)
class Fleet:
    """This process among `world` equal ones. With world 1 every method is the identity and needs no process group."""

    rank: int = 0
    world: int = 1
    local: int = 0  # rank on this machine: which accelerator is ours

    @classmethod
    def current(cls) -> Fleet:
        """The fleet torchrun or `accelerate launch` started; joins its process group (gloo on CPU, nccl on GPUs)."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        if not dist.is_initialized():
            gpus = 0 if os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true"} else torch.cuda.device_count()
            if 0 < gpus <= local:
                raise UserError(
                    f"process {local} of this machine has no GPU ({gpus} found); start at most {gpus} a machine"
                )
            if gpus:
                torch.cuda.set_device(local)
            dist.init_process_group("nccl" if gpus else "gloo", rank=rank, world_size=world)
        return cls(rank, world, local)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def wire(self) -> torch.device:
        """Where tensors must lie to be sent."""
        nccl = self.world > 1 and dist.get_backend() == "nccl"
        return torch.device("cuda", self.local) if nccl else torch.device("cpu")

    def part_of(self, count: int) -> list[int]:
        """This process's part of 0 .. count - 1: as many on each, the last ones repeat some where it does not come out.

        What is gathered of all processes is in order, and what is beyond `count` is left out.
        """
        share = -(-count // self.world)
        return [row % count for row in range(self.rank * share, (self.rank + 1) * share)]

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean over processes, key by key; every process must pass the same keys."""
        if self.world == 1:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.wire)
        dist.all_reduce(total)
        return dict(zip(names, (total / self.world).tolist(), strict=True))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on every process; shapes must agree."""
        if self.world == 1:
            return value
        total = value.to(self.wire).clone()
        dist.all_reduce(total)
        return total.to(value.device)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over processes: one flattened all-reduce in float32.

        A parameter without a gradient here counts as zero, so that ranks may differ in what they touched.
        """
        if self.world == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([g.detach().flatten().float() for g in gradients]).to(self.wire)
        dist.all_reduce(flat)
        pieces = torch.split(flat.div_(self.world), [g.numel() for g in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def divide(self, network: nn.Module, blocks: Collection[str]) -> None:
        """Leave each process its share of every parameter (FSDP2, arXiv 2304.11277), in place.

        Modules of a class named in `blocks` are put together for their forward and backward and divided again; what is
        outside of them stays together in between. Gradients are means over processes from then on, so every process
        has to run as many forwards and backwards as the others. Call it while the parameters are plain tensors.
        """
        mesh = init_device_mesh(self.wire.type, (self.world,))
        for module in reversed(list(network.modules())):  # inner ones first
            if module is network or type(module).__name__ in blocks:
                fully_shard(module, mesh=mesh)

    @staticmethod
    def divide_again(network: nn.Module) -> None:
        """Back to shares where a forward without a backward left parameters of a divided network together."""
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def gather_tensor(self, value: Tensor) -> Tensor:
        """Every process's rows [n_r, ...] in rank order, on every process; lengths may differ."""
        if self.world == 1:
            return value
        length = torch.tensor([len(value)], device=self.wire)
        lengths = [torch.zeros_like(length) for _ in range(self.world)]
        dist.all_gather(lengths, length)
        longest = max(int(n) for n in lengths)
        padded = torch.zeros((longest, *value.shape[1:]), dtype=value.dtype, device=self.wire)
        padded[: len(value)] = value.to(self.wire)
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]).to(value.device)

    def broadcast(self, value: Tensor) -> Tensor:
        """The main process's `value`, on every process; shapes must agree."""
        if self.world == 1:
            return value
        sent = value.to(self.wire).clone()
        dist.broadcast(sent, src=0)
        return sent.to(value.device)

    def barrier(self) -> None:
        """Return once every process has arrived."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group, if this process joined one; call it once, at the end of the program."""
        if dist.is_initialized():
            dist.destroy_process_group()


def whole(value: Tensor) -> Tensor:
    """All of a tensor that is divided among processes, each of which has to ask; any other tensor as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def share(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of `value`, divided as `like` is; `value` itself where `like` is not divided."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
