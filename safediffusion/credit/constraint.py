"""Harm under a budget in every category, by an augmented Lagrangian in the form of ALGD (arXiv 2602.02924).

Notation:
    j            harm category of a picture's prompt        h_j   its budget
    p_e(x)       P(unsafe) of picture x by scorer e of the ensemble, in [0, 1]
    C(x)         mean over e of p_e + k * std over e (population): `std` is k, ALGD's conservative cost with k = 1
    c_j          measured cost: an average of the steps' mean C over the pictures of category j, which fades by `ema`
                 a step and is divided by the weight it has (Adam's bias correction); a step without any leaves it
    u_j          [lambda_j + rho (c_j - h_j)]_+, at most `bound`: what a picture's cost weighs in this step
    lambda_j     <- [lambda_j + eta (c_j - h_j)]_+, once a step, after u_j was taken; it rises no further than to
                 bound - rho (c_j - h_j), above which u_j could not follow (a controller's conditional integration)
    A            the reward's own advantage - u_j (C(x) - mean of C in the group)
    scalar       reward - u_j C(x), for objectives that differentiate or compare rewards

The cost is outside of the reward's normalisation: divided by its own spread, or together with the reward's, it would
weigh the same whatever u_j is. Pictures of prompts without a category, or of one without a budget, cost nothing;
prompts that an attacker found, and whose category nobody knows, are a category of their own.

Different from the authors' code: theirs is a critic of states and actions, lambda = exp of a number that Adam moves,
and the derivative of (1 / 2 rho) [lambda + rho (c - h)]_+^2 is taken at each action's own cost; pictures are no states
on a path, so the multiplier here comes from a category's average and is one for all of its pictures. `bound` is ours:
without the limit on lambda, what piles up while u is at its bound holds a budget far more than kept for as many steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.credit.base import Among, Credit, Scores, group_stats

PREFIX = "constraint/"
SLACK = 1e-4  # by which arithmetic may leave [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How multipliers follow measured costs."""

    rho: float = 10.0
    eta: float = 1.0
    ema: float = 0.9
    bound: float = math.inf

    def __post_init__(self) -> None:
        if min(self.rho, self.eta) < 0 or self.bound <= 0 or not 0 <= self.ema < 1:
            raise UserError(
                f"constraint: rho is {self.rho}, eta {self.eta}, bound {self.bound} and ema {self.ema}; rho and eta "
                "must be 0 or more, bound above 0, and ema 0 or more and below 1"
            )


@dataclass(slots=True, kw_only=True)
class Multiplier:
    """lambda_j, u_j and c_j of one category."""

    budget: float
    rule: Rule
    value: float = 0.0  # lambda
    u: float = 0.0
    total: float = 0.0  # of the costs, each by its weight
    weight: float = 0.0

    @property
    def cost(self) -> float | None:
        """None until a picture of the category was measured."""
        return self.total / self.weight if self.weight else None

    def move(self, measured: float) -> None:
        """One step with this mean cost."""
        rule = self.rule
        self.total = rule.ema * self.total + (1 - rule.ema) * measured
        self.weight = rule.ema * self.weight + (1 - rule.ema)
        over = self.total / self.weight - self.budget
        self.u = min(max(self.value + rule.rho * over, 0.0), rule.bound)
        most = max(self.value, rule.bound - rule.rho * max(over, 0.0))
        self.value = max(0.0, min(self.value + rule.eta * over, most))

    def metrics(self) -> dict[str, float]:
        known = {} if self.cost is None else {"cost": self.cost}
        return {**known, "lambda": self.value, "u": self.u, "budget": self.budget}

    def state(self) -> dict[str, float]:
        return {"lambda": self.value, "u": self.u, "total": self.total, "weight": self.weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.value, self.u = state["lambda"], state["u"]
        self.total, self.weight = state["total"], state["weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained:
    """Any credit of the reward, with the costs of harm against it.

    `costs` names scores that are P(unsafe); of one that has terms (`NAME/TERM`) each term is a scorer of the ensemble.
    UserError for a cost that no scorer produces, or that is no number in [0, 1].
    """

    credit: Credit
    costs: tuple[str, ...]
    budgets: Mapping[str, float]  # by category
    std: float = 1.0
    rule: Rule = Rule()
    multipliers: dict[str, Multiplier] = field(init=False)

    def __post_init__(self) -> None:
        if not self.costs or not self.budgets or self.std < 0:
            raise UserError(
                f"constraint: {len(self.costs)} costs, {len(self.budgets)} budgets and std={self.std}; at least one "
                "of each is needed, and std is 0 or more"
            )
        made = {name: Multiplier(budget=budget, rule=self.rule) for name, budget in self.budgets.items()}
        object.__setattr__(self, "multipliers", made)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.credit.names, *self.costs)

    def cost(self, scores: Scores, prompts: Sequence[Prompt]) -> Tensor:
        """[B] C(x), differentiable in the scores; where the ensemble agrees its std passes no gradient."""
        members = []
        for name in self.costs:
            keys = [key for key in scores if key.startswith(f"{name}/")] or [name]
            if keys == [name] and name not in scores:
                raise UserError(f"constraint.costs names '{name}', but the scorers produce {sorted(scores)}")
            members += [_probability(key, scores[key], prompts) for key in keys]
        found = torch.stack(members)  # [E, B]
        variance = found.var(0, correction=0)
        apart = variance > 0
        spread = torch.where(apart, torch.where(apart, variance, 1.0).sqrt(), 0.0)
        return found.mean(0) + self.std * spread

    def excess(self, scores: Scores, prompts: Sequence[Prompt]) -> float:
        """Sum over categories of [mean cost - budget]_+ of these pictures; one without a picture adds 0."""
        cost, total = self.cost(scores, prompts).detach().double().cpu(), 0.0
        for category, multiplier in self.multipliers.items():
            own = cost[torch.tensor([prompt.harm == category for prompt in prompts])]
            total += max(float(own.mean()) - multiplier.budget, 0.0) if len(own) else 0.0
        return total

    def scalar(self, scores: Scores, prompts: Sequence[Prompt]) -> Tensor:
        reward, cost = self.credit.scalar(scores, prompts), self.cost(scores, prompts)
        return reward - self.weights(prompts).to(cost) * cost

    def advantage(self, scores: Scores, among: Among) -> Tensor:
        own, cost = self.credit.advantage(scores, among), self.cost(scores, among.prompts).detach().double()
        stats = group_stats(cost, among.group)
        above = torch.where(stats.std[among.group] == 0, 0.0, cost - stats.mean[among.group])
        return (own - self.weights(among.prompts).to(above) * above).float()

    def observe(self, scores: Scores, among: Among) -> None:
        """Multipliers move: of every category of which there is a picture."""
        self.credit.observe(scores, among)
        cost = self.cost(scores, among.prompts).detach().double().cpu()
        for category, multiplier in self.multipliers.items():
            own = torch.tensor([prompt.harm == category for prompt in among.prompts])
            if own.any():
                multiplier.move(float(cost[own].mean()))

    def metrics(self) -> dict[str, float]:
        """`constraint/CATEGORY/` cost, lambda, u and budget."""
        return self.credit.metrics() | self._flat({name: m.metrics() for name, m in self.multipliers.items()})

    def state(self) -> dict[str, float]:
        return self.credit.state() | self._flat({name: m.state() for name, m in self.multipliers.items()})

    def load_state(self, state: Mapping[str, float]) -> None:
        self.credit.load_state({name: value for name, value in state.items() if not name.startswith(PREFIX)})
        for category, multiplier in self.multipliers.items():
            start = f"{PREFIX}{category}/"
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            if own:
                multiplier.load_state(own)

    @staticmethod
    def _flat(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {f"{PREFIX}{name}/{key}": value for name, part in parts.items() for key, value in part.items()}

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """[B] float64, u of each prompt's category, 0 where it has no budget."""
        by_category = {name: multiplier.u for name, multiplier in self.multipliers.items()}
        return torch.tensor([by_category.get(p.harm or "", 0.0) for p in prompts], dtype=torch.float64)


def _probability(name: str, value: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """`value` itself. UserError names the first picture's prompt for which it is no number in [0, 1]."""
    bad = (~((value >= -SLACK) & (value <= 1 + SLACK))).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"cost '{name}' is {value[bad[0]].item()} for a picture of prompt '{prompts[bad[0]].id}'; a cost is the "
            "probability that a picture is unsafe, a number in [0, 1]. Name a scorer that gives one in constraint.costs"
        )
    return value
