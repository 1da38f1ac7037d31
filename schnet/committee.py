"""Committees: models of one task that differ in seed alone, and the mean of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from schnet.errors import DataError
from schnet.run import Run


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
        DataError: predictions are missing, or of other structures than the first member's: some
            would have been training data of one member and test data of another.
    """
    if len(runs) < 2:
        raise DataError("a committee takes two models or more; name several runs")
    metrics = runs[0].metrics()
    if metrics is None:
        raise DataError(f"{runs[0].metrics_file}: is not there; evaluate the run")
    index, _ = _read(runs[0], part, quantity)
    error, squares = np.zeros(0), np.zeros(0)
    for count, run in enumerate(runs, start=1):
        there, own = _read(run, part, quantity)
        if not np.array_equal(there, index):
            raise DataError(
                f"{run.predictions_file}: other structures in part {part!r} than in "
                f"{runs[0].predictions_file}; members of a committee share a split"
            )
        if count == 1:
            error, squares = own, np.zeros_like(own)
            continue
        # Welford's update: member by member, since one alone may fill much memory
        change = own - error
        error = error + change / count
        squares = squares + change * (own - error)
    unit = metrics["parts"][part][quantity]["unit"]
    return Committee(error, np.sqrt(squares / (len(runs) - 1)), len(runs), unit)


def _read(run: Run, part: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the structures of a part, and errors of one run in float64, flat."""
    prefix = "" if quantity == run.settings.target else "forces_"
    try:
        with h5py.File(run.predictions_file, "r") as h5:
            group = h5[part]
            true, predicted = group[f"{prefix}true"][:], group[f"{prefix}predicted"][:]
            return group["index"][:], np.subtract(predicted, true, dtype=np.float64).ravel()
    except (OSError, KeyError) as error:
        raise DataError(
            f"{run.predictions_file}: no predictions of {quantity} for part {part!r}; "
            "delete it to evaluate the run again"
        ) from error
