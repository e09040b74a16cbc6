"""An attacker in the loop: what a search keeps, what it costs, and where found prompts go."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from safediffusion.collect.attacker import VOCABULARY, Attacker, Budget, Harmfulness, child
from safediffusion.collect.pool import Found, Pool
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import PARENT, Prompt
from safediffusion.data.attack import Material
from safediffusion.data.mixture import places
from safediffusion.diffusion.denoise import Plan
from safediffusion.models.policy import Weights
from safediffusion.scorers.base import ImageBatch
from tests import asked, tiny, training

PLACED = ("two knives on a red table", "a cat with a knife")


def prompt(number: int) -> Prompt:
    return Prompt(id=f"attack/{number}", text=f"found {number}", tags={"label": "unsafe", PARENT: "p2"})


def test_harm_is_higher_where_a_picture_is_less_safe() -> None:
    batch = ImageBatch(torch.tensor([0.25, 1.0]).view(2, 1, 1, 1).expand(2, 3, 16, 16), tiny.PROMPTS[:2])
    assert Harmfulness(training.Brightness())(batch).tolist() == [-0.25, -1.0]
    assert Harmfulness(asked.OfText(len))(batch).tolist() == [5.0, 11.0]
    steering = training.steering(1.0)
    assert torch.equal(Harmfulness(steering, "safety")(batch), -steering.terms(batch)["safety"])


def test_a_search_keeps_the_worst_of_what_it_tried() -> None:
    """Harm is the length of the text: the parents' are 17 and 16, so a find is longer than 16.5."""
    seen = asked.OfText(len)
    made = asked.attacker(Harmfulness(seen), training.mixture())
    assert [len(p.text) for p in asked.PARENTS] == [17, 16]
    found = made.search(tiny.policy(), 1)
    tried = {p.text for p in seen.shown}
    assert len(tried) == 10 and len(seen.shown) == 20
    new = sorted(tried - {p.text for p in asked.PARENTS}, key=lambda text: (-len(text), text))
    kept = [entry.prompt.text for entry in made.pool.found]
    assert kept == [text for text in new[:2] if len(text) > 17] and kept
    assert [entry.harm for entry in made.pool.found] == [float(len(text)) for text in kept]
    assert found["attack/start"] == 16.5 and found["attack/worst"] == max(map(len, tried))
    assert found["attack/success"] == sum(len(text) > 16.5 for text in new) / 8
    assert (found["attack/found"], found["attack/pool"]) == (len(kept), len(kept))
    assert found["attack/forwards"] == 10 * 2 * 2 == asked.BUDGET.forwards(made.plan, processes=1)
    again = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture())
    again.search(tiny.policy(), 1)
    assert again.pool.state() == made.pool.state()


def test_a_search_also_tries_the_next_words_alone() -> None:
    """Five words, two a search: the third search begins again with the word that is left."""
    material = Material(words=("axe", "bow", "club", "dart", "epee"))
    budget = replace(asked.BUDGET, every=2, sweep=2, candidates=2, keep=2)
    tried = []
    for step in (2, 4, 6):
        seen = asked.OfText(len)
        made = replace(asked.attacker(Harmfulness(seen), training.mixture()), material=material, budget=budget)
        made = replace(made, excluded=lambda text: text in ("a bow", "some bow") or text.endswith("club"))
        assert made.search(tiny.policy(), step)["attack/forwards"] <= budget.forwards(made.plan, processes=1)
        words = {p.text: p for p in seen.shown if p.tags.get(PARENT) == VOCABULARY}
        assert all(p.tags == {"label": "unsafe", PARENT: VOCABULARY} for p in words.values())
        tried += list(words)
    assert len(tried) == 5  # six places of the row, but no text of "club" may be tried
    assert set(tried) == {"a axe", "the bow", "a dart", "a epee"}
    assert budget.forwards(Plan(steps=2), processes=1) == 2 * 2 * (2 + (2 + 2) + 2)
    some = replace(made, budget=replace(budget, sweep=4), excluded=lambda text: False)
    texts = [[p.text for p in some._words(step, set())] for step in range(2, 42, 2)]  # 80 places, 16 turns of 5 words
    assert all(len({*each}) == 4 for each in texts) and any("some" in text for each in texts for text in each)


def test_a_search_puts_finds_into_the_forms_of_training_prompts() -> None:
    """Harmful are the words no harmless prompt has: knife and knives. A find of no word of the vocabulary is left."""
    seen = asked.OfText(len)
    made = asked.attacker(Harmfulness(seen), training.mixture())
    parents = tuple(replace(asked.PARENTS[0], id=f"q{n}", text=text) for n, text in enumerate(PLACED))
    material = Material(words=("gore", "rust", "left"), harmless=("a cat on a red table",))
    budget = replace(asked.BUDGET, crosses=9, candidates=2)
    made = replace(made, parents=parents, material=material, budget=budget)
    assert made._crossed(random.Random(0), set()) == []  # nothing was found yet
    made.pool.add(Found(child(parents[0], text, worded=True), 1.0) for text in ("look, gore", "a knife", "some rust"))
    crossed = made._crossed(random.Random(0), {"two rust on a red table"})
    assert {p.text for p in crossed} == {"two gore on a red table", "a cat with a gore", "a cat with a rust"}
    assert all(p.tags == {"label": "unsafe", PARENT: "q0"} for p in crossed)
    spent = made.search(tiny.policy(), 1)["attack/forwards"]
    assert {p.text for p in crossed} <= {p.text for p in seen.shown}
    assert spent <= budget.forwards(made.plan, processes=1) == 2 * 2 * (2 + (2 + 9) + 2)


def test_what_is_no_worse_than_training_prompts_is_not_kept() -> None:
    made = asked.attacker(Harmfulness(asked.OfText(lambda text: 0.5)), training.mixture())
    found = made.search(tiny.policy(), 1)
    assert made.pool.found == [] and (found["attack/found"], found["attack/success"]) == (0.0, 0.0)


def test_a_search_goes_on_with_different_findings() -> None:
    """`blood` has a word no training prompt has: what shares one with a better prompt comes after all others."""
    made = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture())
    made = replace(made, budget=replace(asked.BUDGET, keep=3))
    first, second = asked.PARENTS
    ranked = [
        child(first, f"{first.text} gore", worded=True),
        child(second, "gore gore", worded=True),
        child(first, "some rust", worded=True),
        child(second, second.text, worded=False),
        second,
    ]
    assert [p.text for p in made._apart(ranked)] == [f"{first.text} gore", "some rust", second.text]
    assert [p.text for p in made._apart(ranked[:2])] == [f"{first.text} gore", "gore gore"]
    shared = [child(first, text, worded=True) for text in ("gore rust", "gore mould", "mould rot", "rot")]
    assert [p.text for p in made._apart(shared)] == ["gore rust", "mould rot", "gore mould"]


def test_a_users_own_tag_makes_no_find() -> None:
    mine = Prompt(id="p9", text="gore", tags={"label": "unsafe", "parent": "p2"})
    assert mine.harm is None and prompt(1).harm == "found"


def test_what_is_hardly_harmful_is_not_trained_on() -> None:
    every = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture())
    every.search(tiny.policy(), 1)
    most = max(entry.harm for entry in every.pool.found)
    made = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture())
    replace(made, budget=replace(asked.BUDGET, least=most)).search(tiny.policy(), 1)
    assert [entry.harm for entry in made.pool.found] == [most]
    none = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture())
    replace(none, budget=replace(asked.BUDGET, least=most + 1)).search(tiny.policy(), 1)
    assert none.pool.found == []


def test_a_find_is_drawn_once_more_by_the_model_before_training() -> None:
    """Harm is the length of the text, the same before and after, so the shorter of two finds is refused."""
    plain, seen = asked.attacker(Harmfulness(asked.OfText(len)), training.mixture()), asked.OfText(len)
    found = plain.search(tiny.policy(), 1)
    first, second = plain.pool.found
    assert first.harm > second.harm
    policy, budget = tiny.policy(), replace(asked.BUDGET, base_pictures=3, base_least=first.harm)
    policy.allocate(frozenset({Weights.REFERENCE}))
    made = replace(asked.attacker(Harmfulness(seen), training.mixture()), budget=budget)
    surer = made.search(policy, 1)
    assert made.pool.found == [first] and found["attack/refused"] == 0
    assert (surer["attack/found"], surer["attack/refused"]) == (1, 1)
    assert [p.text for p in seen.shown[-6:]] == [first.prompt.text] * 3 + [second.prompt.text] * 3
    assert surer["attack/forwards"] == found["attack/forwards"] + 2 * 3 * 2 == budget.forwards(made.plan, processes=1)


def test_the_model_before_training_decides_not_the_one_in_training() -> None:
    policy = tiny.policy(trained=True)
    policy.allocate(frozenset({Weights.REFERENCE}))
    made = replace(
        asked.attacker(Harmfulness(training.Brightness()), training.mixture()),
        budget=replace(asked.BUDGET, base_pictures=3),
    )
    with policy.using(Weights.REFERENCE):
        before = made._measured(policy, asked.PARENTS, 1, before=True)
    assert made._measured(policy, asked.PARENTS, 1, before=True) != before
    least = max(before.values())
    sure = replace(made, budget=replace(made.budget, base_least=least))
    kept = sure._harmful_before(policy, list(asked.PARENTS), 1)
    assert [before[p.text] for p in kept] == [least] and len(before) == 2


def test_excluded_texts_are_not_even_tried() -> None:
    seen = asked.OfText(len)
    made = replace(asked.attacker(Harmfulness(seen), training.mixture()), excluded=lambda text: "blood" in text)
    made.search(tiny.policy(), 1)
    parents = {p.text for p in asked.PARENTS}
    assert not any("blood" in p.text for p in seen.shown if p.text not in parents)


def test_a_search_compares_prompts_without_their_categories_and_under_one_noise() -> None:
    seen = asked.OfText(len)
    own = tuple(replace(p, tags={**p.tags, "category": "violence"}) for p in asked.PARENTS)
    made = replace(asked.attacker(Harmfulness(seen), training.mixture()), parents=own)
    made.search(tiny.policy(), 1)
    assert all("category" not in p.tags for p in seen.shown)
    tags = {"label": "unsafe", PARENT: "p2"}
    for found in made.pool.found:  # one letter's change keeps it, a word put in does not
        put_in = any(word in found.prompt.text.split() for word in asked.MATERIAL.words if word != "blood")
        assert not put_in or "category" not in found.prompt.tags
    assert child(own[0], "a knaife", worded=False).tags == {**tags, "category": "violence"}
    grown = child(own[0], "a rose", worded=True)
    assert grown.tags == tags and child(grown, "a rise", worded=False).tags == tags  # once lost, it stays lost


def test_a_score_that_is_no_number_is_refused() -> None:
    made = asked.attacker(Harmfulness(asked.OfText(lambda text: math.nan)), training.mixture())
    with pytest.raises(UserError, match="step 1: attack.score is nan for a picture of 'a"):
        made.search(tiny.policy(), 1)
    assert not made.pool.found


def test_when_there_is_a_search_and_what_it_takes() -> None:
    budget = Budget(every=3, candidates=5, rounds=2, keep=2, pictures=3)
    assert [step for step in range(8) if budget.searches(step)] == [3, 6]
    plan = Plan(steps=4, guidance=2.0)
    assert budget.forwards(plan, processes=1) == (6 + 15 + 15) * 4 * 2
    assert budget.forwards(plan, processes=4) == (8 + 16 + 16) * 4 * 2  # some are drawn twice


def test_a_pool_has_its_share_and_room() -> None:
    source = training.mixture()
    pool = Pool(source=source, room=3, share=0.25)
    assert pool.draw(5, 4) == source.draw(5, 4)  # nothing was found yet
    pool.add(Found(prompt(number), float(number)) for number in range(5))
    assert [entry.prompt.text for entry in pool.found] == ["found 2", "found 3", "found 4"]
    taken = [sum(p.id.startswith("attack/") for p in pool.draw(step, 6)) for step in range(40)]
    assert set(taken) == {1, 2} and sum(taken) == pytest.approx(60, abs=2)
    drawn = pool.draw(7, 8)
    assert len({p.id for p in drawn if p.id.startswith("attack/")}) == 2  # none twice before all came once
    other = Pool(source=source, room=3, share=0.25)
    other.load_state(pool.state())
    assert other.found == pool.found and other.draw(7, 8) == drawn
    kept = [p for p in drawn if not p.id.startswith("attack/")]
    assert kept == [p for n, p in enumerate(source.draw(7, 8)) if n not in places(7, 8, 0.25, key="0/attack")]


def test_the_order_of_a_pool_survives_a_checkpoint() -> None:
    pool = Pool(source=training.mixture(), room=20)
    pool.add(Found(prompt(number), 0.0) for number in range(12))
    other = Pool(source=training.mixture(), room=20)
    other.load_state(dict(sorted(pool.state().items(), reverse=True)))
    assert other.found == pool.found


def test_processes_share_a_search() -> None:
    """Each draws half; what it is shown are the pictures of its own ranks, the last ones again where need be."""
    halves: list[Prompt] = []
    whole = asked.OfText(len)
    one: Attacker = asked.attacker(Harmfulness(whole), training.mixture())
    one._measured(tiny.policy(), asked.PARENTS, 1)
    for rank in range(2):
        seen = asked.OfText(len)
        part = asked.attacker(Harmfulness(seen), training.mixture(), _Alone(rank, 2))
        with pytest.raises(_Stopped):
            part._measured(tiny.policy(), asked.PARENTS, 1)
        halves += seen.shown
    assert halves == whole.shown


class _Stopped(Exception):
    pass


class _Alone(Fleet):
    def gather_tensor(self, value: torch.Tensor) -> torch.Tensor:
        raise _Stopped
