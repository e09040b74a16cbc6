"""Reverse steps: closed forms, diffusers' own scheduler, and the distribution every sampler must reach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.types import Conditioning, expand
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.diffusion.dynamics import Cps, DanceSde, Ddim, Dynamics, FlowSde, Gaussian
from safediffusion.diffusion.schedule import DiscreteSchedule, Prediction, RectifiedFlow, Schedule
from tests import tiny


def draws(count: int) -> Tensor:
    """[count, 2, 4, 4, 4] standard normal."""
    return torch.randn(count, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    ("prediction", "spacing", "zero_snr"),
    [
        ("epsilon", "leading", False),
        ("epsilon", "trailing", False),
        ("v_prediction", "leading", False),
        ("v_prediction", "trailing", True),
    ],
)
def test_ddim_is_the_step_of_diffusers(eta: float, prediction: str, spacing: str, zero_snr: bool) -> None:
    theirs = tiny.scheduler(prediction, spacing=spacing, zero_snr=zero_snr)
    theirs.set_timesteps(20)
    schedule = DiscreteSchedule.from_config(theirs.config)
    grid, dynamics = schedule.grid(20), Ddim(eta)
    x, raw, noise = draws(3)
    for i, timestep in enumerate(theirs.timesteps):
        t, t_next = grid[i].expand(2), grid[i + 1].expand(2)
        ours = dynamics.step(schedule, schedule.read(raw, x, t), x, t, t_next).sample(noise)
        if eta == 1 and zero_snr and i == 0:
            continue  # theirs is NaN: 1 - alpha_bar - std^2 rounds below 0. The next test has its closed form.
        expected = theirs.step(raw, timestep, x, eta=eta, variance_noise=noise if eta else None).prev_sample
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_an_ancestral_step_from_zero_snr_forgets_x() -> None:
    (alpha, sigma), times = VP.alpha_sigma(torch.tensor([949.0])), (torch.tensor([999.0]), torch.tensor([949.0]))
    x, v = draws(2)[:, :1]
    step = Ddim(1.0).step(VP, VP.read(v, x, times[0]), x, *times)
    torch.testing.assert_close(step.mean, alpha * -v, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(step.std.flatten(), sigma)


def test_eta_one_is_the_posterior_of_ddpm() -> None:
    """Eq. 7 of arXiv:2006.11239 with beta = 1 - a_t / a_s, worked out in Python floats."""
    schedule = DiscreteSchedule(torch.tensor([0.9, 0.5, 0.2]))
    t, s = torch.tensor([2.0]), torch.tensor([1.0])
    x, x0 = 0.7, -0.3
    noise = (x - math.sqrt(0.2) * x0) / math.sqrt(0.8)
    prediction = Prediction(x0=torch.tensor([[x0]]), noise=torch.tensor([[noise]]))
    step = Ddim(1.0).step(schedule, prediction, torch.tensor([[x]]), t, s)
    alpha = 0.2 / 0.5
    mean = math.sqrt(0.5) * (1 - alpha) / 0.8 * x0 + math.sqrt(alpha) * 0.5 / 0.8 * x
    assert step.mean.item() == pytest.approx(mean, abs=1e-6)
    assert step.std.item() == pytest.approx(math.sqrt(0.5 / 0.8 * (1 - alpha)), abs=1e-6)


def test_the_deterministic_flow_steps_are_euler() -> None:
    schedule, (x, v) = RectifiedFlow(), draws(2)
    t, s = torch.full((2,), 0.7), torch.full((2,), 0.5)
    noisy: tuple[Dynamics, ...] = (Ddim(1.0), FlowSde(0.7), DanceSde(0.3), Cps(0.8))
    quiet: tuple[Dynamics, ...] = (Ddim(0.0), FlowSde(0.0), Cps(0.0), *(each.deterministic() for each in noisy))
    for dynamics in quiet:
        step = dynamics.step(schedule, schedule.read(v, x, t), x, t, s)
        torch.testing.assert_close(step.mean, x - 0.2 * v, atol=1e-5, rtol=1e-5)
        assert float(step.std.max()) == 0


def test_log_prob_and_kl_by_hand() -> None:
    # x - mean = (1, -3), std 2: z^2/2 = 1/8, 9/8, mean 5/8; log std = log 2; KL of means (1, 3) apart: (1/8 + 9/8) / 2
    step = Gaussian(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0]]))
    expected = -5 / 8 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert step.log_prob(torch.tensor([[1.0, -3.0]])).item() == pytest.approx(expected)
    assert step.kl(Gaussian(torch.tensor([[1.0, 3.0]]), step.std)).item() == pytest.approx(5 / 8)
    torch.testing.assert_close(step.kl(step), torch.zeros(1))


def test_log_prob_is_a_mean_over_dimensions_of_the_normal_density() -> None:
    mean, x = draws(2)
    std = torch.full((2, 1, 1, 1), 0.3)
    expected = -((x - mean) ** 2) / (2 * 0.3**2) - math.log(0.3 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(Gaussian(mean, std).log_prob(x), expected.mean((1, 2, 3)))


class Exact:
    """The exact denoiser of data N(mu, scale^2): E[x0 | x_t] and the noise that goes with it."""

    def __init__(self, schedule: Schedule, *, mu: float, scale: float) -> None:
        self.schedule, self.mu, self.scale = schedule, mu, scale

    def predict(
        self,
        x: Tensor,
        t: Tensor,
        cond: Conditioning,
        *,
        guidance: float | Tensor = 1.0,
        keep_unconditional_grad: bool = False,
        bare: Tensor | None = None,
    ) -> Prediction:
        alpha, sigma = (expand(value, x) for value in self.schedule.alpha_sigma(t))
        residual = x - alpha * self.mu
        variance = alpha**2 * self.scale**2 + sigma**2
        return Prediction(x0=self.mu + alpha * self.scale**2 / variance * residual, noise=sigma / variance * residual)

    def unconditional(self, x: Tensor, t: Tensor, *, keep_grad: bool = False) -> Tensor:
        raise AssertionError("nothing here is guided")


VP = DiscreteSchedule.from_config(tiny.scheduler("v_prediction", spacing="trailing", zero_snr=True).config)


@pytest.mark.parametrize(
    ("schedule", "dynamics", "window"),
    [
        (VP, Ddim(0.0), None),
        (VP, Ddim(0.5), None),
        (VP, Ddim(1.0), None),
        (VP, Ddim(1.0), (50, 300)),
        (RectifiedFlow(), Ddim(0.0), None),
        (RectifiedFlow(), Ddim(1.0), None),
        (RectifiedFlow(), FlowSde(0.5), None),
        (RectifiedFlow(), FlowSde(0.7), None),
        (RectifiedFlow(), FlowSde(0.7), (0, 250)),
        (RectifiedFlow(3.0, last=0.003), FlowSde(0.7), None),
        (RectifiedFlow(), DanceSde(0.3), None),
        (RectifiedFlow(), DanceSde(0.6), None),
        (VP, Cps(0.0), None),
    ],
)
def test_every_sampler_ends_in_the_distribution_of_the_data(
    schedule: Schedule, dynamics: Dynamics, window: tuple[int, int] | None
) -> None:
    """Log-probabilities cannot see a wrong drift; the marginal does."""
    exact = Exact(schedule, mu=0.6, scale=0.5)
    noise = Noise(((0, "marginal", 0),), (40000,))
    plan = Plan(steps=500, dynamics=dynamics, window=window)
    x, _ = denoise(exact, Conditioning({"text": torch.zeros(1, 1)}), noise, plan)
    assert float(x.mean()) == pytest.approx(0.6, abs=0.01)
    assert float(x.std()) == pytest.approx(0.5, abs=0.01)
    skew = ((x - x.mean()) ** 3).mean() / x.std() ** 3
    assert float(skew) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("schedule", [VP, RectifiedFlow()])
@pytest.mark.parametrize("level", [0.3, 0.8])
def test_cps_ends_in_the_normal_that_its_recursion_gives(schedule: Schedule, level: float) -> None:
    """Its fresh noise does not shrink with the step, so the end is narrower than the data; how much is worked out here.

    With an exact denoiser of N(mu, s^2) every step is affine in x: (mean, variance) follow it in Python floats.
    """
    exact, steps = Exact(schedule, mu=0.6, scale=0.5), 20
    noise = Noise(((0, "marginal", 0),), (40000,))
    plan = Plan(steps=steps, dynamics=Cps(level))
    x, _ = denoise(exact, Conditioning({"text": torch.zeros(1, 1)}), noise, plan)
    mean, variance = 0.0, 1.0
    grid = schedule.grid(steps)
    for now, then in zip(grid[:-1], grid[1:], strict=True):
        (alpha, sigma), (to, left) = ([float(v) for v in schedule.alpha_sigma(t.view(1))] for t in (now, then))
        total = alpha**2 * 0.25 + sigma**2
        slope = to * alpha * 0.25 / total + left * math.cos(level * math.pi / 2) * sigma / total
        mean, variance = (
            to * 0.6 + slope * (mean - alpha * 0.6),
            slope**2 * variance + (left * math.sin(level * math.pi / 2)) ** 2,
        )
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.std()) == pytest.approx(math.sqrt(variance), abs=0.01)
    assert variance < 0.24 if level == 0.8 else variance < 0.25


def test_a_cps_step_has_the_noise_its_time_says() -> None:
    # t 0.8 -> 0.5, x0 = 2, noise = -1: mean 0.5 * 2 - 0.5 cos(0.4 pi), std 0.5 sin(0.4 pi)
    x, times = torch.tensor([[0.2 * 2 + 0.8 * -1]]), (torch.tensor([0.8]), torch.tensor([0.5]))
    step = Cps(0.8).step(RectifiedFlow(), Prediction(torch.tensor([[2.0]]), torch.tensor([[-1.0]])), x, *times)
    assert step.mean.item() == pytest.approx(1 - 0.5 * math.cos(0.4 * math.pi))
    assert step.std.item() == pytest.approx(0.5 * math.sin(0.4 * math.pi))


def test_a_dance_step_by_hand() -> None:
    # t 0.5 -> 0.4, x = 1, v = 2, g = 0.3: drift 2 + 0.09 / 1 * (1 + 0.5 * 2) = 2.18, std 0.3 sqrt(0.1)
    schedule, x, t = RectifiedFlow(), torch.tensor([[1.0]]), torch.tensor([0.5])
    step = DanceSde(0.3).step(schedule, schedule.read(torch.tensor([[2.0]]), x, t), x, t, torch.tensor([0.4]))
    assert step.mean.item() == pytest.approx(1 - 0.218)
    assert step.std.item() == pytest.approx(0.3 * math.sqrt(0.1))


def test_impossible_dynamics_are_refused() -> None:
    with pytest.raises(UserError, match="CPS: level 1.1 must lie between 0"):
        Cps(1.1)
    with pytest.raises(UserError, match="dance SDE: level -0.1 must be >= 0"):
        DanceSde(-0.1)
    with pytest.raises(UserError, match="eta is 1.5; DDIM allows 0"):
        Ddim(1.5)
    with pytest.raises(UserError, match="t_max 1.0 between 0 and 1"):
        FlowSde(0.7, t_max=1.0)
    x = torch.zeros(1, 1)
    with pytest.raises(UserError, match="flow and dance SDEs need a rectified-flow model"):
        FlowSde().step(VP, Prediction(x, x), x, torch.tensor([9.0]), torch.tensor([5.0]))
