"""Learning rates."""

from __future__ import annotations

import math

from schnet.errors import ConfigError
from schnet.run import RunSpec

SCHEDULES = ("exponential", "short", "sgdr")
#: Sec. III: "decay the learning rate exponentially with ratio 0.96 every 100,000 steps"
DECAY, DECAY_STEPS = 0.96, 100_000
SHORT_CONSTANT = 0.75  # share of a short run before the learning rate falls


def learning_rate(spec: RunSpec, step: int) -> float:
    """Learning rate of a step, counted from 0.

    ``exponential``: lr · 0.96^(step / 100,000), continuously. ``short``: lr for three quarters of
    the run, then geometrically down to learning_rate_final. ``sgdr``: cosine from lr to
    learning_rate_final with warm restarts, each period twice as long as the one before.

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
        period = spec.sgdr_period
        while step >= period:
            step, period = step - period, 2 * period
        return final + (start - final) * (1 + math.cos(math.pi * step / period)) / 2
    raise ConfigError(f"schedule: {spec.schedule!r} is none of {', '.join(SCHEDULES)}")
