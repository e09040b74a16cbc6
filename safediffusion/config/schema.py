"""Every key of a recipe: type, default, range, meaning. No torch; `docs/recipes.md` is generated from this file.

Those of `objective` and `credit` depend on their `kind` and are in `config.objectives` and `config.credits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safediffusion.config.active import ActiveConfig, check_active
from safediffusion.config.attack import AttackConfig, check_attack
from safediffusion.config.constraint import ConstraintConfig, check_constraint
from safediffusion.config.credits import CREDIT_KINDS, CreditConfig, WeightedConfig
from safediffusion.config.critic import CriticConfig, check_critic
from safediffusion.config.fields import key, needed, section
from safediffusion.config.guard import GuardConfig, check_guard
from safediffusion.config.objectives import (
    OBJECTIVE_KINDS,
    GrpoConfig,
    ObjectiveConfig,
)
from safediffusion.config.rules import (
    check_experience,
    check_forward,
    check_full,
    check_noise,
    check_pairs,
    check_preferences,
    check_surrogate,
    check_window,
)
from safediffusion.config.surrogate import SurrogateConfig
from safediffusion.core.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfig:
    kind: Literal["lora", "full"] = key("lora", "what is trained: a low-rank adapter of the network, or all of it")
    rank: int = key(16, "rank of the adapter (lora)", low=1)
    alpha: float = key(16.0, "the adapter is scaled by alpha / rank (lora)", low=0)
    targets: tuple[str, ...] = key(
        ("attention",), "what gets an adapter: attention, conv, ff, proj, or ends of layer names (lora)"
    )
    within: tuple[str, ...] = key(
        (), "only in these parts of the network, e.g. up_blocks.1; what comes before them needs no backward (lora)"
    )
    shard: bool = key(False, "divide weights, gradients and moments among the processes, FSDP2 (full)")
    init: Literal["random", "contrast"] = key(
        "random", "what an adapter reads at first: random, or what tells unsafe prompts from benign ones (lora)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    checkpointing: bool = key(
        False, "forget activations and compute them again in the backward pass: less memory, about a third more time"
    )
    vae_slicing: bool = key(False, "decode pictures one at a time")
    vae_tiling: bool = key(False, "decode pictures in overlapping tiles, whose seams can show at large sizes")
    text_encoders: Literal["keep", "cpu", "free"] = key(
        "keep",
        "the text encoders stay on the device, stay in main memory and compute there, or are freed once all prompts of "
        "the recipe are encoded, before the first step",
    )
    embeddings: str | None = key(
        None,
        "a folder that keeps what texts are encoded to for later runs; null = none, or with text_encoders=free the "
        "user's cache ($SAFEDIFFUSION_CACHE, else ~/.cache/safediffusion)",
    )
    embeddings_gib: float = key(
        20.0, "GiB of that folder that embeddings may take; those not used for longest are removed", low=0
    )
    reference_on_cpu: bool = key(
        False, "leave the reference in main memory and move it layer by layer when it is asked (full weights with a KL)"
    )
    channels_last: bool = key(False, "the layout in which convolutions on recent GPUs are fastest")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    steps: int = key(20, "denoising steps of a rollout", low=1)
    guidance: float = key(
        5.0, "classifier-free guidance in rollout and training; 1 turns it off and halves the cost", low=0
    )
    dynamics: Literal["ddim", "flow-sde", "dance-sde", "cps"] = key(
        "ddim", "the noisy steps: ddim (all models), flow-sde or dance-sde (rectified flows), cps (all)"
    )
    eta: float | None = key(None, "noise of a DDIM step: 0 none, 1 that of DDPM; null = 1 (ddim)", low=0, high=1)
    level: float | None = key(
        None, "noise of the other dynamics; null = as published: 0.7 flow-sde, 0.3 dance-sde, 0.8 cps", low=0
    )
    window: tuple[int, int] | None = key(
        None, "[first, last): only these steps are stochastic, recorded and trained; null = all of them"
    )
    window_moves: Literal["fixed", "sliding", "random"] = key(
        "fixed", "the window stays, moves one step on every window_every training steps, or is drawn for each"
    )
    window_every: int = key(25, "training steps until a sliding window moves on", low=1)
    keep_unconditional_grad: bool = key(False, "let gradients through the unconditional branch of guidance as well")
    noise_sharing: Literal["fresh", "group", "all"] = key(
        "fresh", "the initial latent is each picture's own, one a group, or one for the whole step"
    )
    size: tuple[int, int] | None = key(None, "height and width of the pictures in pixels; null = the model's own")
    embedded_guidance: float | None = key(
        None, "guidance that the network takes as an input (FLUX.1 dev); null = 3.5 there", low=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    builtin: str | None = key(None, "prompts that ship: emoji/benign, emoji/unsafe, general/benign, general/unsafe")
    file: str | None = key(None, "a .txt (one a line), .jsonl (id, text, tags) or .csv (column prompt) file instead")
    share: float = key(1.0, "how often this source is drawn, relative to the others", low=0)
    label: Literal["safe", "unsafe"] | None = key(None, "tags all prompts of the source, for the gate `labelled`")
    category: str | None = key(None, "tags all prompts of the source with a harm category, for per-category anchors")
    categories: tuple[str, ...] = key((), "only its prompts of these categories, by their tags; [] = all of them")
    balance: str | None = key(None, "a tag whose values are drawn in even turns, e.g. category")
    count: int | None = key(None, "only so many of its prompts, chosen by the recipe's seed; null = all", low=1)

    def __post_init__(self) -> None:
        if (self.builtin is None) == (self.file is None):
            raise UserError("a prompt source has either `builtin` or `file`; set one of them (the other to null)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringConfig:
    anchors: str = key(
        "compact", "compact, unsafe-only, scaled, per-category, or FILE.yaml#set; of the encoder's world"
    )
    alpha: float | Literal["auto"] = key(
        "auto", "strength of the steering; auto measures it on the first rollout", low=0
    )
    alpha_ratio: float = key(2.0, "auto: safety's spread inside a group, times alpha, over alignment's", low=0)
    mode: Literal["translation", "projection"] = key(
        "translation", "add the direction, or replace the prompt's own part of it"
    )
    gate: Literal["all", "labelled", "classifier"] = key("labelled", "which prompts are steered")
    per_category: bool = key(False, "steer each prompt along its own category's direction")
    labels: str | None = key(
        None, "labelled pictures that improve the directions: as calibration.pictures; null = the anchors alone"
    )
    label_count: int | None = key(None, "use so many of them, drawn by the recipe's seed; null = all", low=0)
    label_prior: float = key(100.0, "the anchors count as so many labels", low=0)

    def __post_init__(self) -> None:
        if self.labels is None and self.label_count is not None:
            raise UserError("label_count counts pictures of `labels`, and there are none; set labels, or leave it out")
        if self.label_prior == 0:
            raise UserError("label_prior is 0; the anchors count as some labels, so set it above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencesConfig:
    source: Literal["rollouts", "files", "wording"] = key(
        "rollouts",
        "the pictures: a rollout's, of files, or of each prompt and its harmless wording, the tag `safe` (dpo, kto)",
    )
    files: str | None = key(
        None, "source=files: a folder (prompts.jsonl, win/, lose/) or a .jsonl of pairs; `groups` of them a step"
    )
    by: str | None = key(
        None,
        "compare by this score, e.g. steering/safety (of P(unsafe) less is better); null = by the weighted sum of all",
    )
    margin: float = key(0.0, "differences of that number up to this tell no preference", low=0)
    per_group: int = key(1, "pairs a group: best and worst, second best and second worst, ... (dpo, d3po)", low=1)
    threshold: float | None = key(None, "on its better side a picture is liked; null = above its group's mean (kto)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    lr: float = key(1e-4, "learning rate of AdamW", low=0)
    betas: tuple[float, float] = key((0.9, 0.999), "decay of AdamW's two moments")
    eps: float = key(1e-8, "AdamW's eps", low=0)
    weight_decay: float = key(0.0, "decoupled weight decay", low=0)
    bits: Literal[8, 32] = key(
        32, "of AdamW's moments: 8 takes a quarter of the memory and the extra `8bit`; not with weights.shard"
    )
    warmup: int = key(0, "updates over which the learning rate rises to lr", low=0)
    decay: Literal["constant", "linear", "cosine"] = key(
        "constant", "what the learning rate does after that, down to 0"
    )
    hold: float = key(0.0, "share of the updates after the warm-up before it decays; below 1", low=0, high=0.99)
    max_norm: float | None = key(1.0, "gradients are clipped to this norm; null = never", low=0)

    def __post_init__(self) -> None:
        if self.max_norm == 0:
            raise UserError("max_norm is 0, which leaves nothing of a gradient; set it above 0, or null for never")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas are {list(self.betas)}; both lie from 0 to below 1, e.g. [0.9, 0.999]")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    suite: str = key("quick", "what is measured during training; see `safediffusion list suites`")
    every: int = key(0, "evaluate after every so many steps; 0 = never", low=0)
    limit: int | None = key(None, "prompts a benchmark; null = all of the suite's", low=1)
    batch: int = key(64, "pictures handled at once", low=1)
    data: Mapping[str, str] = key({}, "prompts of benchmarks that bring none: a file or a hub id, by benchmark or set")
    sources: Mapping[str, str] = key({}, "weights of judges and scorers, where those published are not wanted")
    encoders: Mapping[str, str] = key({}, "CLIPs of judges and scorers, where those published are not wanted")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    pictures: str | None = key(
        None,
        "labelled pictures to check the directions on: emoji, a folder of safe/ and unsafe/CATEGORY/, or a .jsonl file "
        "of image, label, category; null = none",
    )
    min_auc: float = key(
        0.8,
        "training is refused when safe and unsafe pictures, of all or of a category, are told apart less well",
        low=0,
        high=1,
    )
    allow_weak_direction: bool = key(False, "train all the same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str = key("custom", "names the run folder")
    about: str = key("", "one line for `safediffusion list recipes`")
    model: str = needed("emoji, a diffusers folder, a hub id, or BASE+LORA")
    precision: Literal["fp32", "bf16", "fp16"] = key(
        "fp32",
        "the network's arithmetic; trajectories and probabilities are always fp32; fp16 scales the loss and leaves out "
        "updates that overflow",
    )
    compile: bool = key(False, "compile the network (torch.compile): minutes at the start, faster steps after")
    weights: WeightsConfig = section(WeightsConfig, "what is trained")
    memory: MemoryConfig = section(MemoryConfig, "what is given up for memory")
    plan: PlanConfig = section(PlanConfig, "how training pictures are drawn")
    prompts: Mapping[str, SourceConfig] = needed("prompt sources by a name of your choice")
    groups: int = key(8, "prompts a step, over all processes", low=1)
    group_size: int = key(16, "pictures a prompt, 2 or more where they are compared with each other", low=1)
    rollout_batch: int = key(64, "pictures drawn and scored at once by a process", low=1)
    overlap: bool = key(
        False, "score pictures in a thread (and CUDA stream) of their own while the next are drawn: the same numbers"
    )
    encoder: str = key(
        "openai/clip-vit-large-patch14",
        "the CLIP of steering and clip: emoji, a folder, a hub id or open_clip:MODEL/PRETRAINED",
    )
    scorers: Mapping[str, float] = key({"steering": 1.0}, "weight of every score in the reward, by scorer")
    sources: Mapping[str, str] = key(
        {},
        "other weights of scorers with their own: pickscore (a CLIP), hps, aesthetic, imagereward (a file, or "
        "OWNER/NAME/FILE)",
    )
    steering: SteeringConfig = section(SteeringConfig, "the steering reward")
    constraint: ConstraintConfig = section(ConstraintConfig, "budgets of harm, and what measures it")
    credit: CreditConfig = section(WeightedConfig, "from scores to advantages", kinds=CREDIT_KINDS)
    critic: CriticConfig = section(CriticConfig, "a learned value of noisy states, for an advantage a step")
    objective: ObjectiveConfig = section(GrpoConfig, "the loss", kinds=OBJECTIVE_KINDS)
    preferences: PreferencesConfig = section(PreferencesConfig, "which pictures are preferred (dpo, d3po, kto)")
    surrogate: SurrogateConfig = section(SurrogateConfig, "a reward learned on latents (lasro)")
    attack: AttackConfig = section(AttackConfig, "prompts found by search against the current policy")
    active: ActiveConfig = section(ActiveConfig, "prompts that scores disagree about")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW")
    steps: int = needed("training steps", low=1)
    checkpoint_every: int = key(10, "steps between two checkpoints", low=1)
    ema: float | None = key(
        None, "decay an update of the averaged weights, which are evaluated; null = none", low=0, high=1
    )
    seed: int = key(0, "of everything that is drawn", low=0)
    evaluation: EvaluationConfig = section(EvaluationConfig, "measuring during training")
    guard: GuardConfig = section(GuardConfig, "stopping when the reward is bought with the pictures")
    calibration: CalibrationConfig = section(CalibrationConfig, "checking the direction before training")
    log: tuple[str, ...] = key(("tensorboard",), "where metrics go besides metrics.jsonl: tensorboard, wandb, trackio")

    def __post_init__(self) -> None:
        if not self.prompts and self.preferences.source != "files":
            raise UserError("`prompts` is empty; name at least one source, e.g. prompts.mine.file=prompts.txt")
        if not any(self.scorers.values()) and self.preferences.source == "rollouts":
            raise UserError(
                "`scorers` weighs nothing; give at least one a weight other than 0, e.g. scorers.steering=1"
            )
        check_experience(self)
        check_window(self.plan)
        check_noise(self)
        check_forward(self)
        if self.weights.init == "contrast" and self.weights.kind == "full":
            raise UserError(
                "weights.init is contrast, which starts adapters; set weights.kind=lora or weights.init=random"
            )
        check_full(self)
        check_preferences(self)
        check_constraint(self)
        check_surrogate(self)
        check_critic(self)
        check_pairs(self)
        check_guard(self)
        check_attack(self)
        check_active(self)
