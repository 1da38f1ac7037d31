"""Predictions of a trained model: the fastest engine that applies, offsets in float64."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.engine import Engine, ReferenceEngine, check_threads, make_engine
from schnet.engine.native import FrozenEngine
from schnet.engine.table import LARGEST_DISTANCE, MARGIN
from schnet.errors import DataError, OutsideTable
from schnet.models.contract import Model

BELOW, ABOVE = 0.3, 1.0  # Å that a filter table covers beyond the distances that occurred
GROWTH = 1.25  # a table that became too short gets longer by at least this factor


class Predictor:
    """Energies (offsets included, float64) and forces of a model in evaluation mode.

    Filter tables cover the distances that occur and grow when a longer or shorter one comes; in
    large steps, so that atoms that move apart slowly do not ask for many, and up to where filters
    are constant.

    Several threads may use one: it evaluates for one of them at a time. It can be pickled and
    copied; a copy makes an engine of its own.

    Args:
        model: of any architecture.
        device: "cpu" or "cuda"; the model is moved there.
        threads: of the C++ engine.
        engine: auto, native, table or reference.
        any_element: predict also elements that the training data did not have, as evaluations on
            test data must; otherwise they are refused.
        shortest: closer atoms, in Å, are refused. A table then begins there and its knots are
            always the same: the numbers do not depend on what was evaluated before.

    Attributes:
        engine: the engine in use; None before the first evaluation.
        dtype: of the positions that it takes.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        threads: int = 1,
        engine: str = "auto",
        any_element: bool = False,
        shortest: float | None = None,
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.threads, self.wanted = check_threads(threads), engine
        self.dtype = next(self.model.parameters()).dtype
        self.any_element, self.shortest = any_element, shortest
        self.engine: Engine | None = None
        self.range: tuple[float, float] | None = None
        self._known: Tensor | None = None  # the atomic numbers that were checked last
        self._offset_of: tuple[Tensor, Tensor, Tensor] | None = None
        self._lock = threading.RLock()  # engines keep what they are at work on

    #: what is of this process, or refers to tensors of the caller
    _OWN = {"engine": None, "_known": None, "_offset_of": None, "_lock": None}

    def __getstate__(self) -> dict:
        return self.__dict__ | self._OWN

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state | {"_lock": threading.RLock()}

    def _extend(self, batch: Batch) -> Engine:
        """An engine for the distances of a batch as well, which becomes the one in use."""
        self._check_distances(batch)
        d = batch.distances()
        lo, hi = (d.min().item(), d.max().item()) if len(d) else (0.0, 1.0)
        lo, hi = max(0.0, lo - BELOW), hi + ABOVE
        if self.range is not None:
            longer = self.range[1] * (GROWTH if hi > self.range[1] else 1)
            lo, hi = min(lo, self.range[0]), max(hi, longer)
        if self.shortest is not None:
            lo = self.shortest + MARGIN
        self.range = lo, hi
        self.engine = make_engine(
            self.model,
            None,
            self.range,
            engine=self.wanted,
            threads=self.threads,
            device=self.device,
        )
        return self.engine

    def _check_distances(self, batch: Batch) -> None:
        """Raise DataError where two atoms are too close, or a position is not a number."""
        d = batch.distances()
        if not len(d):
            return
        pair = int(d.argmin())  # the first that is not a number, where there is one
        lo, hi = d[pair].item(), d.max().item()
        first = int(batch.atom_ptr[batch.structure[batch.i[pair].long()]])
        i, j = int(batch.i[pair]) - first, int(batch.j[pair]) - first
        if not (lo > 1e-3 and hi < math.inf):
            raise DataError(
                "two atoms are at the same place, or a position is not a finite number "
                f"(atoms {i} and {j})"
            )
        if hi > LARGEST_DISTANCE:
            raise DataError(f"two atoms are {hi:,.0f} Å apart, over {LARGEST_DISTANCE:,.0f} Å")
        if self.shortest is not None and lo < self.shortest:
            raise DataError(
                f"atoms {i} and {j} are {lo:.2f} Å apart, closer than {self.shortest} Å: refused"
            )

    def evaluate(self, batch: Batch, forces: bool = False) -> tuple[Tensor, Tensor | None]:
        """The model's output [B], without offset, and forces [N, 3] or None.

        Raises:
            DataError: an element that the training data did not have, or impossible positions.
        """
        with self._lock:
            return self._evaluate(batch, forces)

    def _evaluate(self, batch: Batch, forces: bool) -> tuple[Tensor, Tensor | None]:
        # the very same tensor comes again in molecular dynamics: looking at it once is enough
        if not self.any_element and batch.atomic_numbers is not self._known:
            self.model.check_elements(batch.atomic_numbers)
            self._known = batch.atomic_numbers
        engine = self.engine or self._extend(batch)
        if self.shortest is not None and isinstance(engine, ReferenceEngine):
            self._check_distances(batch)  # engines with tables see to it themselves
        try:
            return engine.evaluate(batch, forces)
        except OutsideTable:
            return self._extend(batch).evaluate(batch, forces)

    def __call__(self, batch: Batch, forces: bool = False) -> tuple[Tensor, Tensor | None]:
        """Property [B] float64 and, when asked for, forces [N, 3]."""
        with self._lock:
            energy, f = self._evaluate(batch, forces)
            return energy.double() + self._offset(batch), f

    def shortest_distance(self, batch: Batch) -> float:
        """The smallest distance in Å of the batch that was evaluated last, infinite without pairs.

        The C++ engine has seen it; others look again.
        """
        if isinstance(self.engine, FrozenEngine):
            return self.engine.shortest
        d = batch.distances()
        return d.min().item() if len(d) else math.inf

    def _offset(self, batch: Batch) -> Tensor:
        """The model's offset; that of the last batch where atoms have only moved since."""
        same = self._offset_of
        if same is None or batch.atomic_numbers is not same[0] or batch.atom_ptr is not same[1]:
            offset = self.model.offset(batch)
            same = self._offset_of = batch.atomic_numbers, batch.atom_ptr, offset
        return same[2]
