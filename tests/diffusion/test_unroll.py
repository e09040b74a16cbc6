"""Gradients through the last reverse steps of a genuine (tiny) UNet, against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.denoise import Plan, Record, denoise
from safediffusion.diffusion.dynamics import Ddim, FlowSde
from safediffusion.diffusion.schedule import RectifiedFlow
from safediffusion.diffusion.unroll import GradWindow, rest, unroll
from safediffusion.models.policy import Policy
from tests import tiny

PLAN = Plan(steps=4, dynamics=Ddim(0.0))
COUNT = len(tiny.PROMPTS)


def policy_of(kind: str = "v_prediction") -> Policy:
    policy = tiny.policy(trained=True)
    if kind == "flow":
        policy.backbone.schedule = RectifiedFlow()  # type: ignore[misc]
    return policy


def setup(policy: Policy) -> tuple[Conditioning, Noise]:
    keys = tuple((0, prompt.id, 0) for prompt in tiny.PROMPTS)
    return policy.encode(tiny.PROMPTS), Noise(keys, policy.latent_shape)


def window(first: int, stop: int, *, foresee: bool = False, checkpoint: bool = False) -> GradWindow:
    ends = (torch.full((COUNT,), each) for each in (first, stop))
    return GradWindow(first=next(ends), stop=next(ends), foresee=foresee, checkpoint=checkpoint)


def gradient(policy: Policy, plan: Plan, over: GradWindow) -> tuple[Tensor, Tensor]:
    """The result and d sum(x^2) / d parameters, flattened."""
    cond, noise = setup(policy)
    x = unroll(policy, cond, noise, plan, over).latents
    return x.detach(), _slope(policy, (x**2).sum())


def _slope(policy: Policy, value: Tensor) -> Tensor:
    return torch.cat([piece.flatten() for piece in torch.autograd.grad(value, policy.parameters())])


def square(x: Tensor) -> float:
    return float((x.double() ** 2).sum())


def finite(policy: Policy, value: Callable[[], float], along: Tensor, size: float) -> float:
    """The slope of `value` along a unit vector in parameter space, by central differences.

    `value` is to sum in double precision: a sum of hundreds in single precision drowns slopes below one.
    """
    start, found = tiny.flat(policy), []
    with torch.no_grad():
        for sign in (1.0, -1.0):
            nn.utils.vector_to_parameters(start + sign * size * along, policy.parameters())
            found.append(value())
        nn.utils.vector_to_parameters(start, policy.parameters())
    return (found[0] - found[1]) / (2 * size)


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        ("v_prediction", PLAN),
        ("v_prediction", Plan(steps=4, guidance=3.0, dynamics=Ddim(1.0), keep_unconditional_grad=True)),
        ("flow", Plan(steps=3, dynamics=FlowSde(0.7))),
    ],
    ids=["ddim", "guided-noisy", "flow-sde"],
)
def test_through_all_steps_the_gradient_is_that_of_finite_differences(kind: str, plan: Plan) -> None:
    policy = policy_of(kind)
    _, slope = gradient(policy, plan, window(0, plan.steps))
    along = slope / slope.norm()
    cond, noise = setup(policy)
    measured = finite(policy, lambda: square(denoise(policy, cond, noise, plan)[0]), along, 1e-2)
    assert measured == pytest.approx(float(slope.norm()), rel=5e-3)


@pytest.mark.parametrize("last", [1, 2])
def test_truncated_the_gradient_is_that_of_the_last_steps_alone(last: int) -> None:
    """Against finite differences of the last steps from where the others, which then stay as they are, have led."""
    policy, plan = policy_of(), Plan(steps=4, dynamics=Ddim(1.0))
    cond, noise = setup(policy)
    seen = denoise(policy, cond, noise, plan, record=Record())[1]
    assert seen is not None
    start, t, t_next = seen.x[:, -last].clone(), seen.t, seen.t_next

    def rest() -> float:
        x = start
        for i in range(plan.steps - last, plan.steps):
            prediction = policy.predict(x, t[:, i], cond)
            x = plan.dynamics.step(policy.schedule, prediction, x, t[:, i], t_next[:, i]).sample(noise.at(i + 1))
        return square(x.detach())

    x, slope = gradient(policy, plan, window(plan.steps - last, plan.steps))
    assert square(x) == pytest.approx(rest(), rel=1e-5)
    assert finite(policy, rest, slope / slope.norm(), 1e-2) == pytest.approx(float(slope.norm()), rel=5e-3)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_pictures_are_those_of_denoise_whatever_the_window(guidance: float) -> None:
    policy, plan = policy_of(), Plan(steps=4, guidance=guidance, dynamics=Ddim(1.0))
    cond, noise = setup(policy)
    plain, _ = denoise(policy, cond, noise, plan)
    for over in (window(3, 4), window(0, 4), replace(window(0, 4), first=torch.tensor([3, 0, 2, 3]))):
        latents, compared, _ = unroll(policy, cond, noise, plan, over)
        assert latents.requires_grad
        torch.testing.assert_close(latents.detach(), plain, atol=2e-5, rtol=1e-4)
        assert compared.tolist() == [0.0] * COUNT


def test_leaving_early_gives_the_clean_latents_foreseen_there() -> None:
    policy, plan = policy_of(), Plan(steps=5, dynamics=Ddim(1.0))
    cond, noise = setup(policy)
    seen = denoise(policy, cond, noise, plan, record=Record(x0=True))[1]
    assert seen is not None and seen.x0 is not None
    stop = torch.tensor([3, 5, 4, 3])
    over = GradWindow(first=stop - 1, stop=stop, foresee=True)
    latents = unroll(policy, cond, noise, plan, over).latents
    expected = torch.stack([seen.x0[row, stop[row] - 1] for row in range(COUNT)])
    torch.testing.assert_close(latents.detach(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_was_left_early_can_be_drawn_to_its_end(checkpoint: bool) -> None:
    """The picture that the plan gives, without another gradient, and in no more steps than were left."""
    policy, plan, seen = policy_of(), Plan(steps=5, dynamics=Ddim(1.0)), list[int]()
    cond, noise = setup(policy)
    plain, _ = denoise(policy, cond, noise, plan)
    stop = torch.tensor([3, 5, 4, 2])
    over = GradWindow(first=stop - 1, stop=stop, foresee=True, checkpoint=checkpoint)
    found = unroll(policy, cond, noise, plan, over)
    hook = policy.backbone.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    ends = rest(policy, cond, noise, plan, found.after, stop=stop)
    hook.remove()
    torch.testing.assert_close(ends, plain, atol=2e-5, rtol=1e-4)
    assert not (found.after.requires_grad or ends.requires_grad)
    assert seen == [1, 2, 3]  # one image at the third of five steps, two at the fourth
    assert (found.latents.detach() - plain).flatten(1).abs().amax(1).min() > 1e-3  # those that were foreseen


def test_each_image_has_the_gradient_of_its_own_window() -> None:
    """Together and one by one, the sum of gradients is the same."""
    policy, plan = policy_of(), PLAN
    first = torch.tensor([3, 1, 3, 0])
    together = gradient(policy, plan, GradWindow(first=first, stop=torch.full((COUNT,), 4)))[1]
    cond, noise = setup(policy)
    alone = torch.zeros_like(together)
    for row in range(COUNT):
        one = torch.tensor([row])
        over = GradWindow(first=first[one], stop=torch.tensor([4]))
        alone += _slope(policy, (unroll(policy, cond.take(one), noise.take(one), plan, over).latents ** 2).sum())
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_images_share_forwards_until_their_windows_begin() -> None:
    policy, sizes = policy_of(), list[int]()
    hook = policy.backbone.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    over = GradWindow(first=torch.tensor([3, 1, 3, 1]), stop=torch.full((COUNT,), 4))
    unroll(policy, *setup(policy), PLAN, over)
    hook.remove()
    assert sizes == [4, 2, 2, 2, 2, 2, 2]  # all; two with gradients for three steps; two without for two; their last


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_checkpoints_give_the_same_gradient_from_the_memory_of_one_step(guidance: float) -> None:
    policy = policy_of()
    plan = replace(PLAN, guidance=guidance, keep_unconditional_grad=True)

    def kept(over: GradWindow) -> tuple[int, Tensor]:
        """Numbers kept for the backward pass by the forward one, and the gradient."""
        saved = 0

        def count(value: Tensor) -> Tensor:
            nonlocal saved
            saved += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            latents = unroll(policy, *setup(policy), plan, over).latents
        return saved, _slope(policy, (latents**2).sum())

    one, _ = kept(window(3, 4))
    four, slope = kept(window(0, 4))
    cheap, again = kept(window(0, 4, checkpoint=True))
    assert four > 3.5 * one and cheap < one
    torch.testing.assert_close(again, slope, atol=1e-6, rtol=1e-5)


def test_the_unconditional_branch_has_no_graph_unless_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, graphs = policy_of(), list[bool]()
    forward = policy.backbone.forward

    def noted(network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return forward(network, x, t, cond)

    monkeypatch.setattr(policy.backbone, "forward", noted)
    gradient(policy, Plan(steps=2, guidance=3.0, dynamics=Ddim(0.0)), window(1, 2))
    assert graphs == [False, False, True]  # both at once; then the unconditional one, and the other with a graph


def test_what_is_compared_is_averaged_over_the_steps_with_gradients() -> None:
    policy, times = policy_of(), list[float]()

    def compare(x: Tensor, t: Tensor, cond: Conditioning, prediction: object) -> Tensor:
        times.append(float(t[0]))
        return t.expand(len(x))

    _, compared, _ = unroll(policy, *setup(policy), PLAN, window(2, 4), compare=compare)
    grid = policy.schedule.grid(4)
    assert times == grid[2:4].tolist() and compared.tolist() == [float(grid[2:4].mean())] * COUNT


def test_impossible_windows_are_refused() -> None:
    policy = policy_of()
    with pytest.raises(UserError, match="0 <= first < stop"):
        window(3, 3)
    for over in (window(1, 5), window(1, 3)):
        with pytest.raises(UserError, match="end with the plan, or earlier with the picture foreseen"):
            unroll(policy, *setup(policy), PLAN, over)
