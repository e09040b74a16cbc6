"""The frontier from training to the page, on models of random weights; its records, and what may not be mixed."""

from __future__ import annotations

import json
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import frontier, frontier_page, records, rounded, study
from benchmarks.ablations import ABLATIONS, DIRECT, STEER, WHOLE, Ablation
from benchmarks.records import BASE, OWN, Record
from safediffusion.cli.methods import METHODS
from safediffusion.config.check import check
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from safediffusion.core.stats import Estimate
from tests import small


def estimate(value: float | None, n: int = 40) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=n, missing=0 if value is not None else n)


def record(
    name: str, *, seed: int = 0, unsafe: float = 0.5, geneval: float = 0.75, budget: str = "9 UNet forwards"
) -> Record:
    return Record(
        name=name,
        budget="" if name == BASE else budget,
        seed=seed,
        keys=("emoji-steer",),
        recipe="0123456789ab",
        steps=3,
        images=30,
        forwards=300,
        start=60,
        backwards=90,
        seconds=12.0,
        gain=0.5,
        worst=0.25 + seed,
        commit="abc",
        asked="emoji-full, fp32",
        metrics={
            "emoji-i2p/unsafe": estimate(unsafe),
            "emoji-i2p/unsafe/sexual": estimate(unsafe / 10),
            "emoji-i2p/unsafe/hate": estimate(unsafe / 2),
            "emoji-geneval/overall": estimate(geneval),
        },
    )


def test_every_name_is_a_recipe_and_no_name_is_two_things() -> None:
    found = study.entries_of(None)
    assert [entry.name for entry in found] == [*WHOLE, *METHODS, *ABLATIONS]
    for entry in found:
        check(load_recipe(entry.recipe, entry.keys))
    assert [entry.name for entry in study.entries_of("refl,ablations")] == ["refl", *ABLATIONS]
    with pytest.raises(UserError, match="--only names 'rfl'; there are whole, methods"):
        study.entries_of("rfl")


def test_records_are_kept_by_method_budget_and_seed(tmp_path: Path) -> None:
    file = tmp_path / "page.jsonl"
    assert records.read(file) == []
    records.write(file, [record(BASE), record("steer"), record("steer", seed=1)])
    again = records.write(file, [record("steer", unsafe=0.1), record("steer", budget="5 minutes")])
    assert len(again) == 4 and again == records.read(file)
    mine = next(each for each in again if each.key == ("9 UNet forwards", "steer", 0))
    assert mine.metrics["emoji-i2p/unsafe"].value == 0.1
    with pytest.raises(UserError, match="cannot be compared"):
        records.write(file, [replace(record("ddpo"), asked="emoji-full, bf16")])
    assert len(records.read(file)) == 4
    file.write_text(file.read_text() + '{"name": "steer"}\n')
    with pytest.raises(UserError, match="line 5 is no record"):
        records.read(file)
    (tmp_path / "record.json").write_text('{"name": "steer"}')
    with pytest.raises(UserError, match="record.json is no record of a run .*; delete it to measure"):
        records.load(tmp_path)


def test_seeds_together_have_a_mean_only_where_every_seed_has_a_value() -> None:
    one, two = record("steer", unsafe=0.2), record("steer", seed=1, unsafe=0.4)
    both = records.pooled([one, two])["emoji-i2p/unsafe"]
    assert both.mean == pytest.approx(0.3) and (both.lowest, both.highest) == (0.2, 0.4)
    lost = replace(two, metrics={**two.metrics, "emoji-i2p/unsafe": estimate(None)})
    assert records.pooled([one, lost])["emoji-i2p/unsafe"].mean is None
    without = replace(two, metrics={})
    assert records.pooled([one, without])["emoji-i2p/unsafe"].mean is None
    assert records.average([1.0, None]) is None and records.average([1.0, 2.0]) == 1.5


def test_the_page_says_who_is_best_among_those_that_follow_prompts() -> None:
    """`ddpo` is the safest but lost more than two points of .75."""
    made = [
        record(BASE, unsafe=0.8),
        record("steer", unsafe=0.2),
        record("steer", seed=1, unsafe=0.4),
        record("ddpo", unsafe=0.1, geneval=0.7),
        record("refl", unsafe=0.25, geneval=0.74),
        record("alpha-4", unsafe=0.6),
        replace(record("steer-direct", unsafe=0.5), commit="abc with uncommitted changes"),
        replace(record("steer-direct", seed=1, unsafe=0.9), seconds=15.0),
    ]
    text = "\n".join(frontier_page.page(made, "results"))
    assert "`refl`, `steer`, in this order" in text and "none." not in text
    alike = "\n".join(frontier_page.page([record(BASE, unsafe=0.8), record("steer", unsafe=0.8)], "results"))
    assert "none." in alike  # no safer than the base
    hole = replace(record("refl", unsafe=0.1), metrics={"emoji-i2p/unsafe": replace(estimate(0.1), missing=9)})
    assert "none." in "\n".join(frontier_page.page([record(BASE, unsafe=0.8), hole], "results"))
    assert "results-forwards.svg" in text
    assert "| `steer`" in text and "30.0% (20.0% to 40.0%)" in text and "15.0% (10.0% to 20.0%) hate" in text
    changed = text.partition(f"`{DIRECT}` as it is, of the same seeds, and with one choice changed")[2]
    assert "| `alpha-4`" in changed and f"`{STEER}` as it is" not in text
    assert "| `steer-direct` | 50.0% (50.0" in changed, "of the seed that the change has"
    assert (
        "the latter also learns from a moderator's" in text and "The 8 records are of 1 commits, 1 of them with" in text
    )
    assert "12 s (to 15 s)" in text
    assert "To the end of a recipe" not in text
    risks = frontier_page.risks(made)
    assert set(risks) == {"steer", "ddpo", "refl", "steer-direct"}
    assert risks["steer"] == {"steps": 3, "forwards": 8.0, "backwards": 3.0, "panel": 0.75, "reward": 0.5, "seeds": 2}
    assert list(frontier_page.drawings(made)) == ["forwards"]


def test_what_was_asked_of_one_category_is_judged_seed_by_seed() -> None:
    made = [record(BASE, unsafe=0.8), record("one-category", budget=OWN, unsafe=0.05)]
    text = "\n".join(frontier_page.page(made, "results"))
    assert "What was asked of `one-category`" in text
    assert "sexual: unsafe pictures" in text and "0.5%: met" in text
    assert "held-out attacks" in text and "not measured" in text
    assert "To the end of a recipe](results-whole.svg)" in text and list(frontier_page.drawings(made)) == ["whole"]


def test_methods_trained_on_one_category_are_told_apart_in_it_and_in_the_others() -> None:
    """Both seeds cut the other category, 40 % of the base, to what was asked; one has 1 % of its own."""
    budget = records.in_category("at most 9 UNet forwards", "sexual")
    assert records.category_of(budget) == "sexual" and records.kind(budget) == "category"
    assert records.category_of("at most 9 UNet forwards") is None
    made = [
        record(BASE, unsafe=0.8),
        record("steer", budget=budget, unsafe=0.1),
        record("steer", budget=budget, unsafe=0.2, seed=1),
    ]
    text = "\n".join(frontier_page.page(made, "results"))
    assert f"## A{budget[1:]}" in text and "those of sexual alone" in text and "all seven" not in text
    assert "The base has 8.0% (8.0\u20138.0%; n = 40) and 40.0%, and reaches 0 of 7." in text
    assert "has time for" not in text
    row = next(line for line in text.splitlines() if line.startswith("| `steer`"))
    cells = [cell.strip() for cell in row.split("|")[2:5]]
    assert cells == ["1.5% (1.0% to 2.0%)", "7.5% (5.0% to 10.0%)", "2 of 7"]
    assert list(frontier_page.drawings(made)) == ["category"] and frontier_page.risks(made) == {}
    entry = study.entries_of("steer")[0]
    assert entry.within("at most 9 UNet forwards") == entry
    assert entry.within(budget).load(0, 1, _asked(minutes=None)).prompts["unsafe"].categories == ("sexual",)


@pytest.fixture
def two_methods(folders: small.Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`steer` as a method, `alpha-4` as its ablation and `all-categories` to its own end, on small folders."""
    keys = (*folders.small, "evaluation.suite=both", "weights.init=random")
    steer, changed = replace(METHODS["steer"], keys=keys), (*keys, "steering.alpha_ratio=2")
    for module in (study, frontier_page):
        monkeypatch.setattr(module, "METHODS", {"steer": steer})
        monkeypatch.setattr(module, "ABLATIONS", {"alpha-4": Ablation(recipe=STEER, keys=changed)})
        monkeypatch.setattr(module, "WHOLE", {"all-categories": Ablation(recipe=STEER, keys=(*keys, "steps=1"))})
    monkeypatch.setattr(frontier, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(frontier, "PAGE", tmp_path / "docs" / "page.md")
    return tmp_path


def _run(folder: Path, *more: str) -> Result:
    own = [
        f"--out={folder / 'runs'}",
        f"--page={folder / 'docs' / 'page.md'}",
        "--suite=both",
        "--seeds=0",
        "--forwards=60",
    ]
    return CliRunner().invoke(frontier.command, [*own, *more], catch_exceptions=False)


@pytest.mark.usefixtures("tiny_world")
def test_a_frontier_goes_on_where_it_was_and_needs_no_run_folders_afterwards(two_methods: Path) -> None:
    page = two_methods / "docs" / "page.md"
    assert _run(two_methods, "--only=methods").exit_code == 0
    assert [each.name for each in records.read(page.with_suffix(".jsonl"))] == [BASE, "steer"]
    done = _run(two_methods, "--minutes=0.001", "--category=sexual")
    assert done.exit_code == 0, done.output
    forwards = "at most 60 UNet forwards"
    budgets = (forwards, "0.001 minutes of training", records.in_category(forwards, "sexual"))
    assert f"({budgets[0]}): " in done.output and f"steer, seed 0, 2 steps ({budgets[0]})" not in done.output
    found = {each.key: each for each in records.read(page.with_suffix(".jsonl"))}
    expected = {(budget, name, 0) for budget in budgets for name in ("steer", "alpha-4")}
    assert set(found) == {("", BASE, 0), (OWN, "all-categories", 0), *expected}
    steer = found[budgets[0], "steer", 0]
    assert (steer.steps, steer.images) == (2, 8)  # by the forecast, 28 forwards a step, a third would take 84
    assert 0 < steer.forwards <= 56
    assert steer.gain is not None and steer.seconds > 0 and steer.metrics["emoji-i2p/unsafe"].n == 8
    assert json.loads((two_methods / "measured.json").read_text())["steer"]["seeds"] == 1
    text = page.read_text()
    assert "## At most 60 UNet forwards" in text and "## To the end of a recipe" in text
    assert text.count("those that the fastest run of a method has time for") == 1
    assert page.with_name("page-minutes.svg").read_text().startswith("<svg")
    (two_methods / "runs").rename(two_methods / "gone")
    again = _run(two_methods, "--minutes=0.001", "--category=sexual")
    assert again.exit_code == 0 and "steer, seed" not in again.output and page.read_text() == text
    (two_methods / "measured.json").unlink()
    more = _run(two_methods, "--only=methods", "--seeds=1", f"--page={page.with_name('other.md')}")
    assert more.exit_code == 0, more.output  # its pictures are compared with those of a base that is drawn again
    assert not (two_methods / "measured.json").exists()  # what `list methods` says is of one page


@pytest.mark.usefixtures("tiny_world")
def test_a_cpu_without_bf16_rounds_its_products_and_the_page_says_so(
    two_methods: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounded, "has_bf16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    used: list[str] = []

    def products(precision: str) -> AbstractContextManager[object]:
        used.append(precision)
        return rounded.products(precision)

    monkeypatch.setattr(frontier, "products", products)
    assert _run(two_methods, "--only=methods", "--precision=bf16", "--limit=2").exit_code == 0
    page = two_methods / "docs" / "page.md"
    assert used == ["bf16"] * 3  # the base's evaluation, the training and its evaluation
    assert [each.rounded for each in records.read(page.with_suffix(".jsonl"))] == [True, True]
    assert "1 of the 1 runs are from a CPU without bf16 arithmetic" in page.read_text()


@pytest.mark.usefixtures("tiny_world")
def test_records_of_another_study_are_refused_before_anything_is_trained(two_methods: Path) -> None:
    page = two_methods / "docs" / "page.md"
    assert _run(two_methods, "--only=methods").exit_code == 0
    kept = page.with_suffix(".jsonl").read_text()
    for change, message in (
        ("--suite=drawn", "measured by both, fp32, which cannot be compared with drawn, fp32; give the same --suite"),
        ("--forwards=90", "holds runs with at most 60 UNet forwards; give the same --forwards"),
        ("--category=lewd", "names .lewd., which no prompt .*; known: .*sexual"),
    ):
        with pytest.raises(UserError, match=message):
            _run(two_methods, "--only=methods", "--seeds=0,1", change)
    stale = kept.replace('"weights.init=random"', '"weights.init=zero"')
    assert stale != kept
    page.with_suffix(".jsonl").write_text(stale)
    with pytest.raises(UserError, match="steer, seed 0, in .* was trained as '.*init=zero, 2 steps, .*', and would"):
        _run(two_methods, "--only=methods")
    page.with_suffix(".jsonl").write_text(kept.replace('"steps": 2', '"steps": 1'))
    with pytest.raises(UserError, match="1 steps, .*', and would be .*2 steps, .*' now; take its line or folder away"):
        _run(two_methods, "--only=methods")
    other = re.sub('"recipe": "[0-9a-f]+"', '"recipe": "0123456789ab"', kept)
    assert other != kept
    page.with_suffix(".jsonl").write_text(other)  # as if the recipe's file had changed since
    with pytest.raises(UserError, match="2 steps, recipe 0123456789ab', and would be"):
        _run(two_methods, "--only=methods")
    page.with_suffix(".jsonl").unlink()
    with pytest.raises(UserError, match="runs/base holds runs measured by both, fp32"):
        _run(two_methods, "--only=methods", "--suite=drawn")


def _keep(file: Path, name: str) -> None:
    for seed in range(20):
        records.write(file, [record(name, seed=seed)])


def test_processes_that_share_a_page_lose_no_record(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_keep, [tmp_path / "page.jsonl"] * 2, ["steer", "refl"]))
    assert len(records.read(tmp_path / "page.jsonl")) == 40


def test_steps_of_a_time_are_those_of_other_seeds_or_of_the_fastest_run() -> None:
    entry, asked = study.entries_of("steer")[0], _asked(minutes=1.0)
    slow = replace(record("steer", seed=1), seconds=30.0)
    runs = [record("steer"), slow, record("refl")]
    named = [replace(each, budget=asked.by_forwards) for each in runs]
    assert study.steps_by_time(entry, asked, named) == 15  # 4 s a step
    timed = replace(record("steer", seed=2, budget="1 minutes of training"), steps=11)
    assert study.steps_by_time(entry, asked, [*named, timed]) == 11


def test_a_time_that_is_as_many_steps_is_the_same_training(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, asked = study.entries_of("steer")[0], _asked(minutes=0.2)  # 4 s a step, so three steps
    there = replace(record("steer", budget=asked.by_forwards), steps=3)
    monkeypatch.setattr(frontier, "run", lambda *_, **how: pytest.fail(f"trained {how}"))
    made = list(frontier.measure([entry], asked, [record(BASE), there]))
    assert made == [replace(there, budget="0.2 minutes of training")]


def _asked(*, minutes: float | None) -> study.Asked:
    return study.Asked(
        seeds=(0,),
        suite="emoji-full",
        limit=None,
        precision="fp32",
        folder=Path("runs"),
        device="cpu",
        forwards=12_000,
        minutes=minutes,
        category=None,
    )


@pytest.mark.parametrize("stem", ["results", "results-recipes"])
def test_the_pages_of_the_docs_are_those_of_their_records(stem: str) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    found = records.read(docs / f"{stem}.jsonl")
    assert "\n".join(frontier_page.page(found, stem)).rstrip() + "\n" == (docs / f"{stem}.md").read_text()
    for name, text in frontier_page.drawings(found).items():
        assert (docs / f"{stem}-{name}.svg").read_text() == text


def test_what_list_methods_says_is_of_the_page_of_the_docs() -> None:
    found = records.read(frontier.PAGE.with_suffix(".jsonl"))
    assert json.loads(frontier.MEASURED.read_text()) == frontier_page.risks(found)
