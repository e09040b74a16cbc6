"""An attacker in the loop: prompts that the current policy draws least safely join those it is trained on.

Notation:
    f(p)  mean harm of `pictures` pictures of p by the current policy, drawn in `steps` deterministic steps
    P     `keep` prompts: unsafe training prompts, up to half of them found ones once there are any
    each of `rounds` rounds: C = `candidates` new mutations of P;  P <- the `keep` of P and C with the highest f, no two
    of one kind as long as there are others: with a word in common that no unsafe training prompt has, or without such
    words and with one training prompt behind them. Else a search ends in many spellings of one finding
    in the first round C also has the vocabulary's next `sweep` words, each alone, so that all were tried before any is
    again, and `crosses` unsafe training prompts with the words of a find in place of their own harmful ones, which no
    harmless training prompt has: what was found in one prompt is then trained on in the others' forms, too
    at the end what of P is new, above the mean f of the training prompts it began with, and at least `least`, joins
    the pool; with `base_pictures`, if so many fresh pictures by the model before training have a mean harm of
    `base_least`: the worst of many is partly chance, and training on harmless words costs what they mean

An evolutionary search without gradients, so that it works through any score (cf. SneakyPrompt, arXiv 2305.12082, and
Ring-A-Bell, arXiv 2310.10012, which attack a finished model). All prompts of a search are drawn from the same noise
and scored without their category, so that they are compared with each other. A score of pictures does not say which
category they show: a found prompt has its parent's as long as no word was put in between them, and none afterwards.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from safediffusion.collect.base import Collector, Learning, Measured, Settling, State, Volume, portions
from safediffusion.collect.clock import Clock
from safediffusion.collect.pool import Found, Pool
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import PARENT, Prompt
from safediffusion.data.attack import ALONE, Material, cross, dealt, mutate, words_of
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.base import Decomposed, ImageBatch, Scorer

VOCABULARY = "vocabulary"  # what a word tried alone comes from
TRIES = 50  # mutations drawn for one that is new


@dataclass(frozen=True, slots=True)
class Harmfulness:
    """A score, or one term of it, as a number that is higher where a picture is less safe."""

    scorer: Scorer
    term: str | None = None

    def __call__(self, batch: ImageBatch) -> Tensor:
        """[B] float32 on the CPU."""
        if self.term is None:
            found = self.scorer(batch)
        else:
            assert isinstance(self.scorer, Decomposed), "only a score that has terms is asked for one"
            found = self.scorer.terms(batch)[self.term]
        return (-found if self.scorer.higher_is_better else found).float().cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is searched, and how much of it is kept."""

    every: int
    candidates: int
    rounds: int
    keep: int
    pictures: int
    sweep: int = 0  # words
    crosses: int = 0
    least: float = -math.inf  # harm of a prompt that is worth training on
    base_pictures: int = 0  # of each find, by the model before training; 0: it is not asked
    base_least: float = -math.inf  # and the harm of those

    def searches(self, step: int) -> bool:
        """Whether there is a search before this step; before the first nothing was learned yet."""
        return step > 0 and step % self.every == 0

    def forwards(self, plan: Plan, *, processes: int) -> int:
        """Network evaluations of one search that always finds new prompts to try; guidance counts as two."""
        more = self.sweep + self.crosses
        tried = [self.keep, self.candidates + more, *[self.candidates] * (self.rounds - 1)]
        drawn = [*(count * self.pictures for count in tried), self.keep * self.base_pictures]
        return sum(plan.shared_forwards(pictures, processes=processes) for pictures in drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacker:
    """Searches, and puts what it finds into `pool`; every process ends with the same."""

    pool: Pool
    parents: tuple[Prompt, ...]  # unsafe training prompts of distinct texts, at least one
    material: Material
    harm: Harmfulness
    plan: Plan  # deterministic
    budget: Budget
    excluded: Callable[[str], bool] = lambda text: False  # texts that must not be trained on
    batch: int = 64
    seed: int = 0
    fleet: Fleet = Fleet()

    @torch.no_grad()
    def search(self, policy: Policy, step: int) -> dict[str, float]:
        """Add to the pool what the search of this step finds; metrics, the same on every process."""
        rng, clock = random.Random(f"{self.seed}/attack/search/{step}"), Clock(policy.device)
        with clock.part("attack"):
            trained = {p.text for p in self.parents}
            population, spent, tried = self._first(rng), 0, 0
            value = self._measured(policy, population, step)
            start = fmean(harm for text, harm in value.items() if text in trained)
            spent += self._spent(population, self.budget.pictures)
            others = self._others(step, rng, set(value))
            for _ in range(self.budget.rounds):
                made = others + self._mutated(population, rng, {*value, *(p.text for p in others)})
                if not made:
                    break
                others = []
                value |= self._measured(policy, made, step)
                spent, tried = spent + self._spent(made, self.budget.pictures), tried + len(made)
                ranked = sorted([*population, *made], key=lambda p: (-value[p.text], p.text))
                population = self._apart(ranked)
            first = trained | {prompt.text for prompt, _ in self.pool.found}
            higher = sum(harm > start for text, harm in value.items() if text not in first)
            least = self.budget.least
            new = [p for p in population if p.text not in first and value[p.text] > start and value[p.text] >= least]
            sure = self._harmful_before(policy, new, step)
            spent += self._spent(new, self.budget.base_pictures)
            self.pool.add(Found(p, value[p.text]) for p in sure)
        found = {
            "found": len(sure),
            "refused": len(new) - len(sure),
            "success": higher / tried if tried else 0.0,
            "pool": len(self.pool.found),
            "forwards": spent,
            "start": start,
            "worst": max(value.values()),
        }
        return {f"attack/{name}": float(each) for name, each in found.items()} | clock.metrics()

    def _first(self, rng: random.Random) -> list[Prompt]:
        """`keep` prompts of distinct texts where there are as many; half of them from the pool as far as it goes."""
        kept = rng.sample(self.pool.found, min(len(self.pool.found), self.budget.keep // 2))
        fresh = min(self.budget.keep - len(kept), len(self.parents))
        return [*(prompt for prompt, _ in kept), *rng.sample(self.parents, fresh)]

    def _apart(self, ranked: Sequence[Prompt]) -> list[Prompt]:
        """The first `keep`, those of a kind that is there already only where nothing else is left; see the notation."""
        familiar = self._familiar
        chosen: list[Prompt] = []
        again: list[Prompt] = []
        seen: set[str] = set()
        for prompt in ranked:
            kind = set(prompt.text.split()) - familiar or {f"{PARENT} {prompt.tags.get(PARENT, prompt.id)}"}
            if seen.isdisjoint(kind):
                chosen.append(prompt)
                seen |= kind
            else:
                again.append(prompt)
        return [*chosen, *again][: self.budget.keep]

    def _others(self, step: int, rng: random.Random, known: set[str]) -> list[Prompt]:
        """What is tried beside mutations: the words of this step's search, and crosses; all of new texts."""
        known = known | self._trained
        words = self._words(step, known)
        return words + self._crossed(rng, known | {p.text for p in words})

    def _words(self, step: int, known: set[str]) -> list[Prompt]:
        """A word that has no new text is left out; one that ends a turn and begins the next comes in two texts."""
        if not (count := self.budget.sweep):
            return []
        start = (step // self.budget.every - 1) * count
        made: dict[str, Prompt] = {}
        for word in dealt(self.material.words, start, count, key=f"{self.seed}/attack/sweep"):
            texts = (form.format(word) for form in ALONE)
            new = (text for text in texts if text not in known and text not in made and not self.excluded(text))
            if (text := next(new, None)) is not None:
                made[text] = found_prompt(text, {PARENT: VOCABULARY})
        return list(made.values())

    def _crossed(self, rng: random.Random, known: set[str]) -> list[Prompt]:
        """Up to `crosses`; fewer where they keep giving the same, none before something was found."""
        harmful = {*words_of(parent.text for parent in self.parents)} - {*words_of(self.material.harmless)}
        new = {*self.material.words} - self._familiar  # but not the words of a paraphrase or a negation
        grafts = [(p, graft) for p, _ in self.pool.found if (graft := _of(new, p.text))]

        def crossed() -> Prompt:
            found, graft = rng.choice(grafts)
            return child(found, cross(rng.choice(self.parents).text, graft, harmful), worded=True)

        return self._new(crossed, self.budget.crosses if grafts else 0, known)

    def _mutated(self, population: Sequence[Prompt], rng: random.Random, known: set[str]) -> list[Prompt]:
        """Up to `candidates` new prompts; fewer where mutations keep giving the same."""

        def mutated() -> Prompt:
            parent = rng.choice(population)
            text, worded = mutate(parent.text, self.material, rng)
            return child(parent, text, worded=worded)

        return self._new(mutated, self.budget.candidates, known | self._trained)

    def _new(self, make: Callable[[], Prompt], count: int, known: set[str]) -> list[Prompt]:
        """Up to `count` prompts of texts that are neither known nor excluded, no two the same."""
        made: dict[str, Prompt] = {}
        for _ in range(TRIES * count):
            if len(made) == count:
                break
            prompt = make()
            if prompt.text not in known and prompt.text not in made and not self.excluded(prompt.text):
                made[prompt.text] = prompt
        return list(made.values())

    @property
    def _familiar(self) -> set[str]:
        """The words of the unsafe training prompts."""
        return {word for parent in self.parents for word in parent.text.split()}

    @property
    def _trained(self) -> set[str]:
        """The unsafe texts that are trained on: the recipe's, and what was found."""
        return {p.text for p in self.parents} | {prompt.text for prompt, _ in self.pool.found}

    def _harmful_before(self, policy: Policy, found: list[Prompt], step: int) -> list[Prompt]:
        """Those that the model before training draws as harmfully as they have to be; all where it is not asked."""
        if not found or not self.budget.base_pictures:
            return found
        with policy.using(Weights.REFERENCE):
            value = self._measured(policy, found, step, before=True)
        return [p for p in found if value[p.text] >= self.budget.base_least]

    def _measured(
        self, policy: Policy, prompts: Sequence[Prompt], step: int, *, before: bool = False
    ) -> dict[str, float]:
        """f by text; with `before` that of `base_pictures` pictures, from other noise.

        Each process draws an equal share; the last ones draw some again where that does not come out.
        """
        pictures = self.budget.base_pictures if before else self.budget.pictures
        key = f"attack/{step}/base" if before else f"attack/{step}"
        images = [_plain(p) for p in prompts for _ in range(pictures)]
        mine = self.fleet.part_of(len(images))
        noise = Noise(tuple((self.seed, key, n % pictures) for n in mine), policy.latent_shape)
        found = []
        for part in portions(torch.arange(len(mine)), self.batch):
            own = tuple(images[mine[row]] for row in part.tolist())
            latents, _ = denoise(policy, policy.encode(own), noise.take(part), self.plan)
            found.append(self.harm(ImageBatch(policy.decode(latents), own)))
        value = self.fleet.gather_tensor(torch.cat(found))[: len(images)].double()
        if bad := (~value.isfinite()).nonzero().flatten().tolist():
            raise UserError(
                f"step {step}: attack.score is {value[bad[0]].item()} for a picture of '{images[bad[0]].text}'; check "
                "the scorer on that prompt, or name another in attack.score"
            )
        return dict(zip([p.text for p in prompts], value.view(-1, pictures).mean(1).tolist(), strict=True))

    def _spent(self, prompts: Sequence[Prompt], pictures: int) -> int:
        return self.plan.shared_forwards(len(prompts) * pictures, processes=self.fleet.world)


def child(parent: Prompt, text: str, *, worded: bool) -> Prompt:
    """A found prompt: unsafe, with the training prompt it comes from, and its category if no word was put in."""
    tags = {PARENT: parent.tags.get(PARENT, parent.id)}
    if "category" in parent.tags and not worded:
        tags["category"] = parent.tags["category"]
    return found_prompt(text, tags)


def found_prompt(text: str, tags: Mapping[str, str]) -> Prompt:
    """Labelled unsafe, with an id that is a function of its text."""
    identity = f"attack/{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Prompt(id=identity, text=text, tags={"label": "unsafe", **tags})


def _of(words: set[str], text: str) -> str:
    return " ".join(word for word in text.split() if word in words)


def _plain(prompt: Prompt) -> Prompt:
    """Without its category, by which some scores judge pictures of different prompts differently."""
    return replace(prompt, tags={name: value for name, value in prompt.tags.items() if name != "category"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """A collector whose prompts come from an attacker's pool; before some of the steps it searches."""

    inner: Collector[Any]
    attacker: Attacker

    @property
    def behavior(self) -> Weights:
        return self.inner.behavior

    def collect(self, policy: Policy, step: int) -> tuple[Any, Measured]:
        searched = self.attacker.search(policy, step) if self.attacker.budget.searches(step) else {}
        experience, measured = self.inner.collect(policy, step)
        forwards = measured.get("unet_forwards", 0.0) + searched.get("attack/forwards", 0.0)
        return experience, {**measured, **searched, "unet_forwards": forwards}

    def settle(self) -> Measured:
        return self.inner.settle() if isinstance(self.inner, Settling) else {}

    def volume(self, policy: Policy, step: int) -> Volume:
        """Of the pictures that are learned from; those of a search are counted by `Budget.forwards`."""
        return self.inner.volume(policy, step)

    def state(self) -> State:
        return {**self.inner.state(), "attack": self.attacker.pool.state()}

    def load_state(self, state: State) -> None:
        self.attacker.pool.load_state(state["attack"])
        self.inner.load_state({who: each for who, each in state.items() if who != "attack"})

    @property
    def learns(self) -> bool:
        return isinstance(self.inner, Learning) and self.inner.learns

    def tensors(self) -> dict[str, Tensor]:
        assert isinstance(self.inner, Learning), "only what learns has tensors"
        return self.inner.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        assert isinstance(self.inner, Learning), "only what learns has tensors"
        self.inner.load_tensors(tensors)
