"""Learning rates."""

from __future__ import annotations

import math
from fractions import Fraction

from schnet.errors import ConfigError
from schnet.run import RunSpec

SCHEDULES = ("exponential", "short", "sgdr")
#: Sec. III: "decay the learning rate exponentially with ratio 0.96 every 100,000 steps"
DECAY, DECAY_STEPS = 0.96, 100_000
#: growth of the cycles of sgdr, T_mult of arXiv:1608.03983, which advises 2
SGDR_FACTOR = 2
SHORT_CONSTANT = 0.75  # share of a short run before the learning rate falls


def learning_rate(spec: RunSpec, step: int) -> float:
    """Learning rate of a step, counted from 0.

    ``exponential``: lr · 0.96^(step / 100,000), continuously. ``short``: lr for three quarters of
    the run, then geometrically down to learning_rate_final. ``sgdr``: cosine from lr to
    learning_rate_final with warm restarts (Eq. 5 of Loshchilov and Hutter, arXiv:1608.03983), each
    cycle ``SGDR_FACTOR`` times as long as the one before; the first as long as `first_cycle` says.

    Raises:
        ConfigError: no such schedule.
    """
    start, final = spec.learning_rate, spec.learning_rate_final
    if spec.schedule == "exponential":
        return start * DECAY ** (step / DECAY_STEPS)
    if spec.schedule == "short":
        past = max(0.0, step / spec.steps - SHORT_CONSTANT) / (1 - SHORT_CONSTANT)
        return start * (final / start) ** past
    if spec.schedule == "sgdr":
        since, length = Fraction(step), first_cycle(spec)
        while since >= length:
            since, length = since - length, SGDR_FACTOR * length
        return final + (start - final) * (1 + math.cos(math.pi * float(since / length))) / 2
    raise ConfigError(f"schedule: {spec.schedule!r} is none of {', '.join(SCHEDULES)}")


def first_cycle(spec: RunSpec) -> Fraction:
    """Steps of the first cycle of ``sgdr``, T_0 of arXiv:1608.03983.

    With sgdr_cycles the last of so many cycles ends with the run, at the lowest learning rate. The
    length is then seldom a whole number; as a fraction it is exact, and so are the restarts.
    """
    if spec.sgdr_cycles is None:
        return Fraction(spec.sgdr_period)
    return Fraction(spec.steps * (SGDR_FACTOR - 1), SGDR_FACTOR**spec.sgdr_cycles - 1)
