"""Keyed noise: standard normal, a function of the key alone."""

from __future__ import annotations

import hashlib

import pytest
import torch

from safediffusion.core.noise import Noise, stream

KEYS = tuple((7, f"prompt {i % 3}", i) for i in range(12))


def test_a_row_depends_on_its_key_and_not_on_its_batch_or_rank() -> None:
    noise = Noise(KEYS, (4, 8, 8))
    whole = noise.at(5)
    by_rank = [noise.take(torch.arange(rank, 12, 3)).at(5) for rank in range(3)]
    assert torch.equal(whole, torch.stack([row for rows in zip(*by_rank, strict=True) for row in rows]))
    assert torch.equal(whole[7:8], Noise(KEYS[7:8], (4, 8, 8)).at(5))


def test_every_part_of_the_key_and_the_step_changes_the_draw() -> None:
    base = Noise(((1, "a", 0),), (64,)).at(1)
    for key, step in (((2, "a", 0), 1), ((1, "b", 0), 1), ((1, "a", 1), 1), ((1, "a", 0), 2)):
        correlation = (base * Noise((key,), (64,)).at(step)).mean()
        assert abs(float(correlation)) < 0.5, (key, step)


def test_draws_are_standard_normal_and_independent_between_steps() -> None:
    noise = Noise(tuple((0, "p", i) for i in range(50)), (4, 16, 16))
    first, second = noise.at(0), noise.at(1)
    assert first.dtype is torch.float32 and first.shape == (50, 4, 16, 16)
    assert float(first.mean()) == pytest.approx(0, abs=0.015)
    assert float(first.std()) == pytest.approx(1, abs=0.015)
    assert float((first**4).mean()) == pytest.approx(3, abs=0.1)
    assert float((first * second).mean()) == pytest.approx(0, abs=0.015)


def test_the_numbers_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(Noise(((0, "a cat", 3),), (2, 3)).at(4).numpy().tobytes()).hexdigest()[:16]
    assert digest == "ac95236a79c271dd"


def test_a_shared_start_is_shared_at_step_zero_only() -> None:
    keys = ((0, "a", 0), (0, "b", 0))
    noise = Noise(keys, (16,), start=((0, "shared", 0),) * 2)
    start, later = noise.at(0), noise.at(1)
    assert torch.equal(start[0], start[1])
    assert not torch.equal(later[0], later[1])
    assert torch.equal(later, Noise(keys, (16,)).at(1))


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    Noise(KEYS, (4,)).at(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_stream_repeats_for_equal_keys() -> None:
    assert stream(1, "x").integers(1 << 30) == stream(1, "x").integers(1 << 30)
    assert stream(1, "x").integers(1 << 30) != stream("1", "x").integers(1 << 30)
