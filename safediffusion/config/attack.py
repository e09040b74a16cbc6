"""The keys of `attack`: a search for prompts that the current policy still draws unsafely. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safediffusion.config.constraint import HARM
from safediffusion.config.fields import key
from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest
from safediffusion.judges.registry import JUDGES
from safediffusion.scorers.registry import SCORERS

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe
    from safediffusion.data.mixture import Mixture

SAFETY = "steering/safety"
QUALITY = ("aesthetic", "clip", "hps", "imagereward", "pickscore", "steering")  # scores that say nothing of harm


WORDS = ("none", "prompts", "model")  # vocabularies that are no file


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackConfig:
    every: int = key(0, "search before every so many steps, but the first; 0 = never", low=0)
    candidates: int = key(32, "prompts tried in a round", low=1)
    rounds: int = key(2, "rounds of a search, each over mutations of the worst so far", low=1)
    sweep: int = key(0, "words of the vocabulary that a search also tries alone: all in turn, then again", low=0)
    crosses: int = key(
        0, "unsafe prompts a search tries with an earlier find's words in their harmful ones' place", low=0
    )
    keep: int = key(8, "prompts a search starts from, goes on with, and adds at most", low=1)
    pictures: int = key(2, "pictures of each prompt tried", low=1)
    steps: int = key(6, "denoising steps of those", low=1)
    pool: int = key(256, "found prompts that are kept; the oldest make room", low=1)
    share: float = key(0.25, "of the prompts of a step, how many are found ones, once there are any", low=0, high=1)
    score: str = key(SAFETY, "what finds pictures unsafe: steering/safety, harm, a judge, emoji-moderator or a plug-in")
    least: float | None = key(None, "harm by that score which a prompt must reach to be trained on; null = any")
    base_pictures: int = key(0, "pictures of each find by the model before training; 0 = it is not asked", low=0)
    base_least: float | None = key(None, "harm those must reach for a prompt to be trained on; needs base_pictures")
    vocabulary: str = key(
        "prompts", "words that may be put in: none, prompts (the recipe's), model (its tokenizer's) or a file of words"
    )

    @property
    def on(self) -> bool:
        return self.every > 0

    @property
    def goes_by(self) -> str | None:
        """The score that finds prompts; None where nothing is searched."""
        return self.score if self.on else None


def check_attack(recipe: Recipe) -> None:
    """Options that mean nothing together."""
    own = recipe.attack
    if not own.on:
        if own != AttackConfig():
            raise UserError("`attack` is set, but attack.every is 0, so nothing is searched; set attack.every=10")
        return
    if not own.share:
        raise UserError(
            "attack.share is 0, so nothing that a search finds would be trained on; raise it, or set attack.every=0"
        )
    if recipe.memory.text_encoders == "free":
        raise UserError(
            "attack finds new texts, which cannot be encoded once memory.text_encoders=free has dropped the text "
            "encoders; set memory.text_encoders=cpu"
        )
    if recipe.preferences.source != "rollouts":
        raise UserError(
            f"attack adds prompts to draw, but preferences.source={recipe.preferences.source} brings its own pairs; "
            "set preferences.source=rollouts or attack.every=0"
        )
    if own.candidates < own.keep:
        raise UserError(
            f"attack.candidates is {own.candidates} and attack.keep {own.keep}; a round cannot keep more than it "
            "tries, so raise candidates or lower keep"
        )
    if (own.sweep or own.crosses) and own.vocabulary == "none":
        raise UserError(
            f"attack.sweep is {own.sweep} and attack.crosses {own.crosses}, but attack.vocabulary is none, so there "
            "is no word to try; set attack.vocabulary=model, prompts or a file"
        )
    if (own.base_least is None) == (own.base_pictures > 0):
        raise UserError(
            f"attack.base_pictures is {own.base_pictures} and attack.base_least "
            f"{'null' if own.base_least is None else f'{own.base_least:g}'}; set both, or 0 and null"
        )
    if own.score == HARM and recipe.constraint.pictures is None and recipe.calibration.pictures is None:
        raise UserError(
            "attack.score is harm, which is fitted on labelled pictures, but there are none; set calibration.pictures"
        )


def check_attacked(recipe: Recipe, mixture: Mixture) -> None:
    """Names, files and prompts of an attack."""
    own = recipe.attack
    known = [SAFETY, HARM, *JUDGES.names(), *sorted({*SCORERS.names()} - {*QUALITY})]
    if own.score not in known:
        raise UserError(f"attack.score: {own.score} is no score of harm; {suggest(own.score, known)}")
    if own.vocabulary not in WORDS and not Path(own.vocabulary).is_file():
        raise UserError(
            f"attack.vocabulary: '{own.vocabulary}' is no file; it is none, prompts, model, or a file, a word a line"
        )
    if not any(prompt.tags.get("label") == "unsafe" for prompt in mixture.prompts):
        raise UserError(
            "attack mutates prompts labelled unsafe, and there is none; set prompts.NAME.label=unsafe for a source"
        )
