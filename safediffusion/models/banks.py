"""Where a policy's sets of weights live: LoRA adapters, full copies, or nothing to train at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import cpu_offload
from diffusers import ModelMixin
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet, share, whole
from safediffusion.core.noise import stream
from safediffusion.core.registry import suggest

from .forgetful import forgetful
from .policy import Weights

GROUPS = {
    "attention": (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),  # of the text's side (SD3, FLUX)
    ),
    "conv": ("conv1", "conv2", "time_emb_proj"),
    "ff": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    "proj": ("proj_in", "proj_out"),
}
ADAPTER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """What adapters to train.

    `targets` are group names (attention, conv, ff, proj) or the ends of module names; `within`, where given, names the
    parts of the network they must lie in. Nothing before the first adapted layer costs a backward pass.
    """

    rank: int = 16
    alpha: float = 16.0  # the adapter's output is scaled by alpha / rank
    targets: tuple[str, ...] = ("attention",)
    within: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise UserError(
                f"LoRA rank {self.rank}, alpha {self.alpha}, targets {list(self.targets)}: "
                "rank and alpha must be above 0 and at least one target named"
            )

    def layers(self, network: nn.Module) -> list[str]:
        """The full names of the layers that get an adapter. UserError for a target or a part that matches none."""
        names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        for part in self.within:
            if not any(f"{name}.".startswith(f"{part}.") for name in names):
                starts = {".".join(name.split(".")[:2]) for name in names}
                raise UserError(f"LoRA within '{part}' is no part of this model; {suggest(part, starts)}")
        inside = [n for n in names if not self.within or any(f"{n}.".startswith(f"{p}.") for p in self.within)]
        found: dict[str, None] = {}
        for target in self.targets:
            matched = [name for name in inside if _ends(name, target)]
            if not matched:
                where = f"within {', '.join(self.within)}" if self.within else "of this model"
                known = {name.rpartition(".")[2] for name in inside}
                known |= {group for group in GROUPS if any(_ends(name, group) for name in inside)}
                raise UserError(f"LoRA target '{target}' matches no layer {where}; {suggest(target, known)}")
            found |= dict.fromkeys(matched)
        return list(found)


class LoraBank:
    """Adapters in a frozen network. REFERENCE is the adapters off: the base exactly, at no cost in memory.

    BEHAVIOR and EMA are copies of the adapter tensors, swapped in while active. `frozen_dtype` is the type the base's
    weights are stored in (float32 if None); adapters are float32. Build it once the network is on its device.
    """

    def __init__(self, network: nn.Module, spec: LoraSpec, *, frozen_dtype: torch.dtype | None = None) -> None:
        self.network, self.spec = network, spec
        layers = spec.layers(network)
        store(network.requires_grad_(False), frozen_dtype or torch.float32)
        config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=layers)
        with torch.random.fork_rng(
            devices=[]
        ):  # peft draws initial values from the global generator; ours replace them
            inject_adapter_in_model(config, network, ADAPTER)
        self._layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
        for layer in self._layers:
            layer.cast_input_dtype_enabled = False  # autocast does it, once
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._parameters = {name.replace(f".{ADAPTER}.", "."): p for name, p in named.items()}
        self._initialize()
        self._tensors: dict[Weights, list[Tensor]] = {Weights.REFERENCE: []}
        self._active = Weights.LIVE
        if isinstance(network, ModelMixin) and network.is_gradient_checkpointing:
            network.enable_gradient_checkpointing(forgetful(self))

    @property
    def active(self) -> Weights:
        """The set that computes now."""
        return self._active

    @property
    def sharded(self) -> bool:
        return False

    @property
    def adapted(self) -> dict[str, nn.Module]:
        """The adapted layers by name."""
        return {name: self.network.get_submodule(name) for name in self.down}

    @property
    def down(self) -> dict[str, Tensor]:
        """A of every adapted layer by the layer's name: [rank, inputs], of a convolution [rank, inputs, H, W]."""
        start = {name: p for name, p in self._parameters.items() if ".lora_A." in name}
        return {name.partition(".lora_A.")[0]: p.data for name, p in start.items()}

    @torch.no_grad()
    def start_from(self, down: Mapping[str, Tensor]) -> None:
        """Replace A in every set of weights. Before training, when B is zero, the model stays the base."""
        for which in self.allocated - {Weights.REFERENCE}:
            own = dict(zip(self._parameters, self._current(which), strict=True))
            _load(
                {name: t for name, t in own.items() if ".lora_A." in name},
                {f"{n}.lora_A.weight": t for n, t in down.items()},
            )

    def _initialize(self) -> None:
        """Kaiming-uniform A, zero B: every adapter starts as exactly nothing. Keyed by (seed, name)."""
        for name, parameter in self._parameters.items():
            parameter.data = parameter.data.float()
            if ".lora_B." in name:
                parameter.data.zero_()
                continue
            bound = 1 / math.sqrt(parameter[0].numel())
            values = stream(self.spec.seed, name).uniform(-bound, bound, tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(values))

    @property
    def allocated(self) -> frozenset[Weights]:
        return frozenset({Weights.LIVE, *self._tensors})

    def allocate(self, which: Weights) -> None:
        if which not in self.allocated:
            self._tensors[which] = [p.clone() for p in self._current(Weights.LIVE)]

    def activate(self, which: Weights) -> nn.Module:
        if which is self._active:
            return self.network
        if self._active is Weights.LIVE:
            self._tensors[Weights.LIVE] = [p.data for p in self._parameters.values()]
        if which is not Weights.REFERENCE:
            for parameter, data in zip(self._parameters.values(), self._tensors[which], strict=True):
                parameter.data = data
        if Weights.REFERENCE in (which, self._active):
            for layer in self._layers:
                layer.enable_adapters(which is not Weights.REFERENCE)
        self._active = which
        return self.network

    def _current(self, which: Weights) -> list[Tensor]:
        """The tensors that hold `which` now."""
        assert which is not Weights.REFERENCE, "the reference of a LoRA bank is the base itself; it has no tensors"
        if which is Weights.LIVE and self._active is Weights.LIVE:
            return [p.data for p in self._parameters.values()]
        return self._tensors[which]

    def refresh(self, which: Weights, decay: float) -> None:
        torch._foreach_lerp_(self._current(which), self._current(Weights.LIVE), 1 - decay)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def describe(self) -> dict[str, str]:
        spec = self.spec
        chosen = {"targets": ",".join(spec.targets), "within": ",".join(spec.within)}
        return {"kind": "lora", "rank": str(spec.rank), "alpha": repr(spec.alpha), **chosen}

    def state(self, which: Weights) -> dict[str, Tensor]:
        return _copies(self._parameters, self._current(which))

    def load_state(self, state: dict[str, Tensor], which: Weights) -> None:
        _load(dict(zip(self._parameters, self._current(which), strict=True)), state)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSpec:
    """All weights are trained; with a `fleet` every process keeps only its share of each set (`Fleet.divide`)."""

    fleet: Fleet | None = None


class FullBank:
    """Every weight of the network is trained, in float32; each further set is a whole copy.

    With `reference_on_cpu` REFERENCE lies in main memory and moves to the network's device layer by layer, when used.
    """

    def __init__(self, network: nn.Module, spec: FullSpec | None = None, *, reference_on_cpu: bool = False) -> None:
        store(network, torch.float32)
        self._fleet = None if spec is None or spec.fleet is None or spec.fleet.world == 1 else spec.fleet
        self._reference_on_cpu = reference_on_cpu
        self._device = next(network.parameters()).device
        self._undivided = _copy(network, "meta")  # what further sets are made from: a divided network has no copies
        self._blocks = tuple(getattr(network, "_no_split_modules", None) or ())
        self._sets: dict[Weights, nn.Module] = {Weights.LIVE: self._divided(network.requires_grad_(True))}

    @property
    def sharded(self) -> bool:
        return self._fleet is not None

    def _divided(self, network: nn.Module) -> nn.Module:
        if self._fleet is not None:
            self._fleet.divide(network, self._blocks)
        return network

    @property
    def allocated(self) -> frozenset[Weights]:
        return frozenset(self._sets)

    def allocate(self, which: Weights) -> None:
        if which not in self._sets:
            self._sets[which] = self._new(offloaded=which is Weights.REFERENCE and self._reference_on_cpu)

    def _new(self, *, offloaded: bool) -> nn.Module:
        """A copy of LIVE without gradients."""
        live = self._sets[Weights.LIVE]
        if offloaded:
            moved: nn.Module = cpu_offload(_copy(live, "cpu"), execution_device=self._device)
            return moved
        if not self.sharded:
            return _copy(live, self._device)
        made = self._divided(_copy(self._undivided, "meta"))
        made.load_state_dict({name: value.clone() for name, value in live.state_dict().items()}, assign=True)
        return made.requires_grad_(False)

    def activate(self, which: Weights) -> nn.Module:
        return self._sets[which]

    def refresh(self, which: Weights, decay: float) -> None:
        torch._foreach_lerp_(self._current(which), self._current(Weights.LIVE), 1 - decay)

    def _current(self, which: Weights) -> list[Tensor]:
        return [p.data for p in self._own(which).parameters()]

    def _own(self, which: Weights) -> nn.Module:
        """The network of `which`, every process's share of it in its parameters."""
        network = self._sets[which]
        if self._fleet is not None:
            self._fleet.divide_again(network)
        return network

    def parameters(self) -> list[nn.Parameter]:
        return list(self._own(Weights.LIVE).parameters())

    def describe(self) -> dict[str, str]:
        return {"kind": "full"}

    def state(self, which: Weights) -> dict[str, Tensor]:
        return _copies([name for name, _ in self._sets[which].named_parameters()], self._current(which))

    def load_state(self, state: dict[str, Tensor], which: Weights) -> None:
        _load({name: p.data for name, p in self._own(which).named_parameters()}, state)


class FrozenBank:
    """A model that is only sampled from: LIVE, REFERENCE and EMA are the network itself."""

    def __init__(self, network: nn.Module, *, frozen_dtype: torch.dtype | None = None) -> None:
        self.network = network.requires_grad_(False)
        store(network, frozen_dtype or torch.float32)

    @property
    def sharded(self) -> bool:
        return False

    @property
    def allocated(self) -> frozenset[Weights]:
        return frozenset({Weights.LIVE, Weights.REFERENCE, Weights.EMA})

    def allocate(self, which: Weights) -> None:
        assert which in self.allocated, f"a frozen policy has no {which} weights"

    def activate(self, which: Weights) -> nn.Module:
        return self.network

    def refresh(self, which: Weights, decay: float) -> None:
        raise AssertionError("a frozen policy is not trained, so nothing lags behind it")

    def parameters(self) -> list[nn.Parameter]:
        return []

    def describe(self) -> dict[str, str]:
        return {"kind": "frozen"}

    def state(self, which: Weights) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: dict[str, Tensor], which: Weights) -> None:
        _load({}, state)


def _copy(network: nn.Module, device: torch.device | str) -> nn.Module:
    """`network` again, with parameters of its own on `device` and without gradients."""
    own = {id(p): nn.Parameter(p.detach().to(device, copy=True), requires_grad=False) for p in network.parameters()}
    return copy.deepcopy(network, own)  # which finds the parameters copied already


def store(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep every parameter in `dtype`."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)


def _ends(layer: str, target: str) -> bool:
    return any(f".{layer}".endswith(f".{end}") for end in GROUPS.get(target, (target,)))


def _copies(names: Mapping[str, object] | Sequence[str], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Copies by name on the CPU; of divided tensors the whole, in which every process has to take part."""
    return {name: whole(t.detach()).to("cpu", copy=True).contiguous() for name, t in zip(names, tensors, strict=True)}


@torch.no_grad()
def _load(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `targets` in place, after checking that they agree name by name."""
    for name in sorted(targets.keys() ^ state.keys()):
        problem = "is missing from" if name in targets else "is not a trained tensor of this model but is in"
        raise UserError(f"tensor '{name}' {problem} the saved weights; they were trained with other LoRA options")
    for name, tensor in targets.items():
        if tensor.shape != state[name].shape:
            raise UserError(
                f"saved tensor '{name}' has shape {list(state[name].shape)}, this model wants {list(tensor.shape)}; "
                "they were trained with another rank or another base"
            )
        tensor.copy_(share(state[name], tensor))
