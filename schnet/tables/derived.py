"""Rows that summarise a column: one number from the errors of all its properties.

J. Klicpera, J. Groß, S. Günnemann, Directional Message Passing for Molecular Graphs, ICLR 2020,
arXiv:2003.03123, for targets m = 1 … M with mean absolute errors MAE_m and standard deviations
sigma_m of the true values::

    std. MAE = 1/M sum_m MAE_m / sigma_m              in per cent here
    logMAE   = 1/M sum_m ln(MAE_m / sigma_m)

A logarithm weighs all properties alike; the first is ruled by the hardest ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """One number for many properties.

    Attributes:
        unit: of the number; empty where it has none.
        of: takes the ratios MAE_m / sigma_m, [M].
    """

    unit: str
    of: Callable[[np.ndarray], float]


#: by the name that ``derived:`` of a row gives
SUMMARIES = {
    "std_mae": Summary("%", lambda ratios: float(100 * np.mean(ratios))),
    "log_mae": Summary("", lambda ratios: float(np.mean(np.log(ratios)))),
}
