"""Fast evaluation of the very same model: the filter is a function of one distance, so it is tabulated.

Three ways to compute energies, forces and parameter gradients, in order of preference:

- ``native``: the C++ kernels in ``src/`` (CPU, float32, F a multiple of 16, sum or mean readout);
- ``table``: the same filter table in plain PyTorch, any device;
- ``reference``: schnet.models.schnet as it is written in the paper.

All of them agree to float32 rounding; tests/test_engine.py holds them to it.
"""

from __future__ import annotations

import logging

import torch

from schnet.engine import native
from schnet.engine.table import TableEngine
from schnet.errors import ConfigError
from schnet.models.schnet import SchNet

log = logging.getLogger("schnet")
ENGINES = ("auto", "native", "table", "reference")


class ReferenceEngine:
    """The plain model behind the engines' interface."""

    name = "reference"

    def __init__(self, model):
        self.model = model

    def __call__(self, batch, forces: bool):
        """Differentiable energies [B] (without offset) and forces [N, 3] or None."""
        return self.model.energy_and_forces(batch, create_graph=True) if forces else (self.model(batch), None)

    def evaluate(self, batch, forces: bool):
        """The same without a graph, at the present parameters."""
        if forces:
            return self.model.energy_and_forces(batch)
        with torch.no_grad():
            return self.model(batch), None

    def refresh(self):
        """Call after the parameters have changed and before ``evaluate``."""


class FlatParameters:
    """All parameters of a model in one vector, of which the model's parameters are views.

    One vector makes the optimiser, the weight average and checkpoints single operations. ``tensor`` is
    the leaf to optimise; gradients of the single parameters are views of ``tensor.grad``.
    """

    def __init__(self, model):
        parameters = list(model.parameters())
        self.tensor = torch.nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.tensor.grad = torch.zeros_like(self.tensor)
        self.offsets, at = [], 0
        for p in parameters:
            self.offsets.append(at)
            n = p.numel()
            p.data = self.tensor.data[at : at + n].view_as(p)
            p.grad = self.tensor.grad[at : at + n].view_as(p)
            at += n


def why_not_native(model: SchNet, device) -> str | None:
    """The reason why the native engine does not apply, or None."""
    if torch.device(device).type != "cpu":
        return f"device {device}"
    p = model.hyperparameters
    if p.readout == "dipole":
        return "dipole readout"
    if p.n_features % 16:
        return f"{p.n_features} features (not a multiple of 16)"
    return native.unavailable()


def choose(model, device="cpu", engine: str = "auto") -> str:
    """native, table or reference: the fastest that applies to a model and a device, and the log says why.

    engine: one of ENGINES; ConfigError with the reason where "native" or "table" is asked for and does not apply.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
    if engine == "reference":
        return engine
    if not isinstance(model, SchNet):
        no_table = f"architecture {model.name}"
    else:
        no_table = "double precision" if next(model.parameters()).dtype == torch.float64 else None
    if engine == "auto" or engine == "native":
        reason = no_table or why_not_native(model, device)
        if reason is None:
            return "native"
        if engine == "native":
            raise ConfigError(f"engine: native does not apply: {reason}")
        log.info("native engine not used: %s", reason)
    if no_table and engine == "table":
        raise ConfigError(f"engine: table does not apply: {no_table}")
    return "reference" if no_table else "table"


def make_engine(model, flat: FlatParameters | None, distance_range, *, engine: str = "auto", threads: int = 1, device="cpu"):
    """The engine that ``choose`` names, for distances in a range (Å); a distance outside raises OutsideTable.

    flat: the model's parameters in one vector, for training; None: the weights never change.
    """
    chosen = choose(model, device, engine)
    if chosen == "native":
        return native.FrozenEngine(model, distance_range, threads) if flat is None else native.NativeEngine(model, flat, distance_range, threads)
    return TableEngine(model, distance_range) if chosen == "table" else ReferenceEngine(model)
