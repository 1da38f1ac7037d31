"""Predictions of a trained model: the fastest engine that applies, offsets in float64."""

from __future__ import annotations

import torch

from schnet.data.structures import Batch
from schnet.engine import ReferenceEngine, native, why_not_native
from schnet.errors import ConfigError


class Predictor:
    """Energies (offsets included, float64) and forces of a model in evaluation mode.

    engine: auto (frozen filter table where it applies), native or reference. threads: for the native engine.
    """

    def __init__(self, model, *, device: str = "cpu", threads: int = 1, engine: str = "auto"):
        self.device = torch.device(device)
        self.model = model.to(self.device)
        reason = why_not_native(self.model, self.device) if engine in ("auto", "native") else "engine: reference"
        if reason and engine == "native":
            raise ConfigError(f"engine: native does not apply: {reason}")
        self.engine = ReferenceEngine(self.model) if reason else native.FrozenEngine(self.model, threads)
        self.dtype = next(self.model.parameters()).dtype

    def __call__(self, batch: Batch, forces: bool = False):
        """Property [B] float64 and, when asked for, forces [N, 3]."""
        energy, f = self.engine.evaluate(batch, forces)
        return energy.double() + self.model.offset(batch), f
