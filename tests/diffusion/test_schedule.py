"""Schedules: read and native are inverses, grids and tables are those of diffusers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.diffusion.schedule import DiscreteSchedule, Prediction, RectifiedFlow, Schedule, add_noise
from tests import tiny

SD15 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR = SD15 | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
SCHEDULES: dict[str, Schedule] = {
    "epsilon": DiscreteSchedule.from_config(SD15),
    "v": DiscreteSchedule.from_config(SD15 | {"prediction_type": "v_prediction"}),
    "v zero snr": DiscreteSchedule.from_config(ZERO_SNR),
    "flow": RectifiedFlow(),
    "flow shifted": RectifiedFlow(shift=3.0),
}


def case(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
    """x0 and noise [8, 4, 4, 4] and times [8] spread over the schedule."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 8, 4, 4, 4, generator=generator)
    return x0, noise, schedule.grid(9)[1:9]


@pytest.mark.parametrize("name", SCHEDULES)
def test_read_recovers_both_ends_and_native_gives_the_output_back(name: str) -> None:
    schedule = SCHEDULES[name]
    x0, noise, t = case(schedule)
    x = add_noise(schedule, x0, noise, t)
    raw = schedule.native(Prediction(x0=x0, noise=noise), t)
    read = schedule.read(raw, x, t)
    torch.testing.assert_close(read.x0, x0, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(read.noise, noise, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.native(read, t), raw, atol=2e-5, rtol=1e-5)


def test_native_outputs_are_those_of_the_papers() -> None:
    x0, noise, t = case(SCHEDULES["v"])
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in SCHEDULES["v"].alpha_sigma(t))
    truth = Prediction(x0=x0, noise=noise)
    assert torch.equal(SCHEDULES["epsilon"].native(truth, t), noise)
    torch.testing.assert_close(SCHEDULES["v"].native(truth, t), alpha * noise - sigma * x0)
    torch.testing.assert_close(SCHEDULES["flow"].native(truth, t), noise - x0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 16, 20, 50])
def test_the_grid_is_the_timesteps_of_diffusers_and_ends_in_data(spacing: str, steps: int) -> None:
    theirs = tiny.scheduler("epsilon", spacing=spacing)
    theirs.set_timesteps(steps)
    grid = DiscreteSchedule.from_config(theirs.config).grid(steps)
    assert grid.tolist() == [*map(float, theirs.timesteps.tolist()), -1.0]


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alpha_sigma_are_those_of_diffusers(kind: str, zero_snr: bool) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_schedule=kind,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=zero_snr,
    )
    alpha, sigma = DiscreteSchedule.from_config(theirs.config).alpha_sigma(torch.arange(1000).float())
    torch.testing.assert_close(alpha**2, theirs.alphas_cumprod, atol=1e-5, rtol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000), atol=1e-5, rtol=0)
    assert (float(alpha[-1]) == 0) is zero_snr


def test_data_is_alpha_one_or_the_first_alpha() -> None:
    data = torch.tensor([-1.0])
    one = DiscreteSchedule.from_config(SD15 | {"set_alpha_to_one": True})
    first = DiscreteSchedule.from_config(SD15 | {"set_alpha_to_one": False})
    assert [float(v) for v in one.alpha_sigma(data)] == [1.0, 0.0]
    assert torch.equal(first.alpha_sigma(data)[0], first.alpha_sigma(torch.tensor([0.0]))[0])


def test_shift_moves_the_flow_grid_towards_noise() -> None:
    # 3 * 0.5 / (1 + 2 * 0.5) = 0.75
    assert RectifiedFlow(shift=3.0).grid(2).tolist() == [1.0, 0.75, 0.0]
    assert RectifiedFlow().grid(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "v-prediction"}, "unknown prediction_type 'v-prediction'.*did you mean 'v_prediction'"),
        ({"timestep_spacing": "trailling"}, "unknown timestep_spacing 'trailling'.*did you mean 'trailing'"),
        ({"beta_schedule": "scaled-linear"}, "unknown beta_schedule 'scaled-linear'.*did you mean 'scaled_linear'"),
        ({"clip_sample": True}, "sets clip_sample: true.*scheduler_config.json"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR.*needs prediction_type 'v_prediction'"),
    ],
)
def test_a_scheduler_that_cannot_be_followed_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiscreteSchedule.from_config(SD15 | change)


def test_steps_beyond_training_are_refused() -> None:
    schedule = DiscreteSchedule.from_config(SD15 | {"steps_offset": 1})
    with pytest.raises(UserError, match="1001 sampling steps were asked for; this model allows 1 to 1000"):
        schedule.grid(1001)
    with pytest.raises(UserError, match="steps_offset 1 start at timestep 1000, but the last one is 999"):
        schedule.grid(1000)
