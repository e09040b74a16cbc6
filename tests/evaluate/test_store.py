"""The evaluation folder survives kills, and a judgement without its picture does not count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safediffusion.core.errors import UserError
from safediffusion.evaluate.rows import Detection, Row
from safediffusion.evaluate.store import ALL, Store, find
from tests.evaluation import colours, saved


def judged(store: Store, item: Row, shade: int) -> Row:
    pixels = np.full((8, 8, 3), shade, dtype=np.uint8)
    return replace(item, detections=(Detection(name="red", x=1, y=1, score=0.5),), image=store.save(item.key, pixels))


def opened(folder: Path) -> tuple[Store, tuple[Row, ...]]:
    store, items = Store(folder), colours(prompts=4, repeats=1).items()
    store.begin(items, {})
    return store, items


def test_pictures_come_back_exactly(tmp_path: Path) -> None:
    store, items = opened(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    store.save(items[0].key, pixels)
    read = store.open(items[0].key)
    assert read is not None and np.array_equal(read, pixels)


def test_a_deleted_picture_is_missing_and_not_safe(tmp_path: Path) -> None:
    folder = saved(tmp_path, colours(prompts=3, repeats=1), [False, False, True])
    store = Store(folder)
    store.picture(store.items()[0].key).unlink()
    first = store.rows()[0]
    assert first.detections is None and first.image is None and first.scores == {}
    assert [row.image is None for row in store.rows()] == [True, False, False]


def test_an_edited_picture_loses_its_judgement(tmp_path: Path) -> None:
    folder = saved(tmp_path, colours(prompts=2, repeats=1), [False, False])
    store = Store(folder)
    store.save(store.items()[1].key, np.full((16, 16, 3), 7, dtype=np.uint8))
    assert [row.detections is None for row in store.rows()] == [False, True]


def test_a_torn_picture_cannot_be_opened(tmp_path: Path) -> None:
    store, items = opened(tmp_path)
    store.save(items[0].key, np.zeros((64, 64, 3), dtype=np.uint8))
    path = store.picture(items[0].key)
    path.write_bytes(path.read_bytes()[:40])
    assert store.open(items[0].key) is None
    assert store.open("never-there") is None


def test_a_line_cut_by_a_kill_is_dropped_and_then_written_over(tmp_path: Path) -> None:
    store, items = opened(tmp_path)
    store.append([judged(store, items[0], 1)], rank=0, world=1)
    shard = tmp_path / "rows-00000-of-00001.jsonl"
    with shard.open("a") as file:
        file.write('{"benchmark": "colours", "key": "col')
    assert list(store.judged()) == [items[0].key]
    store.append([judged(store, items[1], 2)], rank=0, world=1)
    assert list(store.judged()) == [items[0].key, items[1].key]


def test_shards_of_any_number_of_processes_merge_to_the_same_file(tmp_path: Path) -> None:
    texts = []
    for world in (1, 3):
        store, items = opened(tmp_path / str(world))
        rows = [judged(store, item, i) for i, item in enumerate(items)]
        for rank in reversed(range(world)):
            store.append(rows[rank::world], rank=rank, world=world)
        store.consolidate()
        assert [path.name for path in store.folder.glob("rows-*")] == [ALL]
        texts.append((store.folder / ALL).read_text())
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 4


def test_find_takes_an_evaluation_or_a_run_and_refuses_the_rest(tmp_path: Path) -> None:
    folder = saved(tmp_path / "run" / "eval" / "both", colours(prompts=1, repeats=1), [True])
    assert find(folder) == (folder,)
    assert find(tmp_path / "run") == (folder,)
    with pytest.raises(UserError, match="holds no evaluation; write one with `safediffusion evaluate"):
        find(tmp_path)
    with pytest.raises(UserError, match=r"no items\.jsonl"):
        Store(tmp_path).items()


def test_snapshots_of_training_speak_only_where_nothing_else_does(tmp_path: Path) -> None:
    bench, run = colours(prompts=1, repeats=1), tmp_path / "eval"
    for name in ("quick-000050", "quick-000100"):
        saved(run / name, bench, [True])
    assert find(tmp_path) == (run / "quick-000100",)
    saved(run / "full", bench, [False])
    assert find(tmp_path) == (run / "full",)


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text("{")
    with pytest.raises(UserError, match=r"eval\.json cannot be read as JSON"):
        Store(tmp_path).read_manifest()
