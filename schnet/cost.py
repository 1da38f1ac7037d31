"""What a fit costs in time."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Time; differences and sums of it are costs too.

    Attributes:
        seconds: on the clock.
        core_seconds: of the processor, all threads together. A pause lengthens the former only; a
            neighbour on the same core, or on the same machine under a hypervisor, both.

    Example:
        >>> begin = Cost.now()
        >>> spent = Cost.now() - begin
    """

    seconds: float = 0.0
    core_seconds: float = 0.0

    @classmethod
    def now(cls) -> Cost:
        """Of this process and of those that it has waited for, counted from any moment."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = time.process_time() + children.ru_utime + children.ru_stime
        return cls(time.monotonic(), used)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.core_seconds + other.core_seconds)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.seconds - other.seconds, self.core_seconds - other.core_seconds)
