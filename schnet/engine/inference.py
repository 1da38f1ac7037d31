"""Predictions of a trained model: the fastest engine that applies, offsets in float64."""

from __future__ import annotations

import torch

from schnet.data.structures import Batch
from schnet.engine import choose, make_engine
from schnet.errors import DataError, OutsideTable


class Predictor:
    """Energies (offsets included, float64) and forces of a model in evaluation mode.

    engine: auto, native, table or reference; threads: for the native engine. Filter tables cover the distances
    that occur and grow when a longer or shorter one comes.
    """

    def __init__(self, model, *, device: str = "cpu", threads: int = 1, engine: str = "auto"):
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.options = {"engine": choose(self.model, self.device, engine), "threads": threads, "device": self.device}
        self.dtype = next(self.model.parameters()).dtype
        self.engine, self.range = None, None

    def _extend(self, batch: Batch):
        """An engine for the distances of a batch as well."""
        d = batch.positions[batch.j.long()] - batch.positions[batch.i.long()]
        d = (d if batch.shift is None else d + batch.shift).norm(dim=1)
        lo, hi = (d.min().item(), d.max().item()) if len(d) else (0.0, 1.0)
        if (not lo > 1e-3 and len(d)) or not hi < 1e4:
            raise DataError("two atoms are at the same place, or a position is not a finite number")
        lo, hi = max(0.0, lo - 0.3), hi + 1.0
        if self.range is not None:
            lo, hi = min(lo, self.range[0]), max(hi, self.range[1])
        self.range = lo, hi
        self.engine = make_engine(self.model, None, self.range, **self.options)

    def evaluate(self, batch: Batch, forces: bool = False):
        """The model's output [B], without offset, and forces [N, 3] or None."""
        if self.engine is None:
            self._extend(batch)
        try:
            return self.engine.evaluate(batch, forces)
        except OutsideTable:
            self._extend(batch)
            return self.engine.evaluate(batch, forces)

    def __call__(self, batch: Batch, forces: bool = False):
        """Property [B] float64 and, when asked for, forces [N, 3]."""
        energy, f = self.evaluate(batch, forces)
        return energy.double() + self.model.offset(batch), f
