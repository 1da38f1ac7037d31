"""Committees: models of one task that differ in seed alone, and the mean of their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from schnet.errors import DataError
from schnet.run import Run

SAME = 1e-5  # relative difference of two means of the same errors, one perhaps of float32


@dataclass(frozen=True)
class Committee:
    """What a committee predicts for the test structures of its members.

    Attributes:
        error: mean of the members' predictions minus the true value, [M] values of structures, or
            of force components.
        spread: sample standard deviation of the members' predictions, [M].
        members: how many. unit: of error and spread.
    """

    error: np.ndarray
    spread: np.ndarray
    members: int
    unit: str


def read_committee(runs: Sequence[Run], part: str, quantity: str) -> Committee:
    """The committee of several evaluated runs, from the predictions that they keep.

    Args:
        runs: its members, at least two.
        part: of their common split.
        quantity: their target, or else its forces.

    Raises:
        DataError: predictions are missing, do not give the error in metrics.json, or are of other
            structures than the first member's: some would have been training data of one member
            and test data of another.
    """
    if len(runs) < 2:
        raise DataError("a committee takes two models or more; name several runs")
    index, error, unit = _read(runs[0], part, quantity)
    squares = np.zeros_like(error)
    for count, run in enumerate(runs[1:], start=2):
        there, own, _ = _read(run, part, quantity)
        if not np.array_equal(there, index):
            raise DataError(
                f"{run.predictions_file}: other structures in part {part!r} than in "
                f"{runs[0].predictions_file}; members of a committee share a split"
            )
        # Welford's update: member by member, since one alone may fill much memory
        change = own - error
        error = error + change / count
        squares = squares + change * (own - error)
    return Committee(error, np.sqrt(squares / (len(runs) - 1)), len(runs), unit)


def _read(run: Run, part: str, quantity: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Indices of the structures of a part, errors of one run in float64, flat, and their unit."""
    prefix = "" if quantity == run.settings.target else "forces_"
    try:
        with h5py.File(run.predictions_file, "r") as h5:
            group = h5[part]
            true, predicted = group[f"{prefix}true"][:], group[f"{prefix}predicted"][:]
            index, error = group["index"][:], np.subtract(predicted, true, dtype=np.float64)
    except (OSError, KeyError, ValueError) as problem:
        raise DataError(
            f"{run.predictions_file}: no predictions of {quantity} for part {part!r}; "
            "delete it to evaluate the run again"
        ) from problem
    metrics = (run.metrics() or {}).get("parts", {}).get(part, {}).get(quantity, {})
    told = metrics.get("mae")
    found = float(np.abs(error).mean())
    if told is None or not math.isclose(found, told, rel_tol=SAME):
        raise DataError(
            f"{run.predictions_file}: its mean error of {quantity} is {found:.6g}, that in "
            f"{run.metrics_file} {told}; delete both to evaluate the run again"
        )
    return index, error.ravel(), metrics["unit"]
