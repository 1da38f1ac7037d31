"""Fast evaluation of the very same model.

A filter of SchNet is a function of one distance, so it can be tabulated. There are three ways to
compute energies, forces and parameter gradients, in order of preference:

- ``native``: the C++ kernels in ``src/`` (CPU, float32, F a multiple of 16);
- ``table``: the same filter table in plain PyTorch, any device;
- ``reference``: the model as its file says, for every architecture.

All of them agree to float32 rounding; tests/test_engine.py holds them to it.
"""

from __future__ import annotations

import logging
from typing import Protocol, cast

import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.engine import native
from schnet.engine.table import TableEngine
from schnet.errors import ConfigError
from schnet.models.contract import Model
from schnet.models.schnet import Hyperparameters, SchNet

log = logging.getLogger("schnet")
ENGINES = ("auto", "native", "table", "reference")
MOST_THREADS = 1024


class Engine(Protocol):
    """What computes energies and forces; ``name`` says which engine it is.

    Engines for training, made for a vector of parameters, can also be called: ``engine(batch,
    forces)`` gives differentiable energies [B] and forces [N, 3] or None.
    """

    name: str

    @property
    def model(self) -> Model:
        """The model that is computed."""

    def evaluate(self, batch: Batch, forces: bool) -> tuple[Tensor, Tensor | None]:
        """Energies [B] (without offset) and, when wanted, forces [N, 3], without a graph."""

    def refresh(self) -> object:
        """Call after the parameters have changed and before ``evaluate``."""


class ReferenceEngine:
    """The plain model behind the engines' interface."""

    name = "reference"

    def __init__(self, model):
        self.model = model

    def __call__(self, batch, forces: bool):
        """Differentiable energies [B] (without offset) and forces [N, 3] or None."""
        if forces:
            return self.model.energy_and_forces(batch, create_graph=True)
        return self.model(batch), None

    def evaluate(self, batch, forces: bool):
        """The same without a graph, at the present parameters."""
        if forces:
            return self.model.energy_and_forces(batch)
        with torch.no_grad():
            return self.model(batch), None

    def refresh(self):
        """Call after the parameters have changed and before ``evaluate``."""


def check_threads(threads: int) -> int:
    """The number of threads, or ConfigError where no machine has so many processors."""
    if not 1 <= threads <= MOST_THREADS:
        raise ConfigError(f"threads: {threads} is not within 1–{MOST_THREADS}")
    return threads


class FlatParameters:
    """All parameters of a model in one vector, of which the model's parameters are views.

    One vector makes the optimiser, the weight average and checkpoints single operations. ``tensor``
    is the leaf to optimise; gradients of the single parameters are views of ``tensor.grad``.
    """

    def __init__(self, model):
        parameters = list(model.parameters())
        self.tensor = torch.nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.tensor.grad = torch.zeros_like(self.tensor)
        self.offsets: list[int] = []
        at = 0
        for p in parameters:
            self.offsets.append(at)
            n = p.numel()
            p.data = self.tensor.data[at : at + n].view_as(p)
            p.grad = self.tensor.grad[at : at + n].view_as(p)
            at += n


def why_no_table(model: Model) -> str | None:
    """The reason why filter tables do not apply to a model, or None."""
    if not isinstance(model, SchNet):
        return f"architecture {model.name}"
    if next(model.parameters()).dtype == torch.float64:
        return "double precision"
    return None


def why_not_native(model: Model, device) -> str | None:
    """The reason why the C++ engine does not apply to a model, or None."""
    no_table = why_no_table(model)
    if no_table:
        return no_table
    if torch.device(device).type != "cpu":
        return f"device {device}"
    p = cast(Hyperparameters, model.hyperparameters)
    if p.n_features % 16:
        return f"{p.n_features} features (not a multiple of 16)"
    return native.unavailable()


def choose(model: Model, device="cpu", engine: str = "auto") -> str:
    """native, table or reference: the fastest engine that applies, and the log says why.

    Args:
        model: a model of any architecture.
        device: where it is evaluated.
        engine: one of ENGINES.

    Raises:
        ConfigError: with the reason, where "native" or "table" is asked for and does not apply.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
    if engine == "reference":
        return "reference"
    no_table = why_no_table(model)
    if engine == "table":
        if no_table:
            raise ConfigError(f"engine: table does not apply: {no_table}")
        return "table"
    reason = why_not_native(model, device)
    if reason is None:
        return "native"
    if engine == "native":
        raise ConfigError(f"engine: native does not apply: {reason}")
    log.info("native engine not used: %s", reason)
    return "reference" if no_table else "table"


def make_engine(
    model: Model,
    flat: FlatParameters | None,
    distance_range: tuple[float, float],
    *,
    engine: str = "auto",
    threads: int = 1,
    device="cpu",
) -> Engine:
    """The engine that ``choose`` names.

    Args:
        model: a model of any architecture.
        flat: its parameters in one vector, for training; None: the weights never change.
        distance_range: smallest and largest distance that occur, in Å. Engines with filter tables
            raise OutsideTable for others.
        engine: one of ENGINES.
        threads: of the C++ engine.
        device: where the model is.
    """
    chosen = choose(model, device, engine)
    if chosen == "reference":
        return ReferenceEngine(model)
    assert isinstance(model, SchNet)  # of others, choose knows the reference only
    if chosen == "table":
        return TableEngine(model, distance_range)
    if flat is None:
        return native.FrozenEngine(model, distance_range, threads)
    return native.NativeEngine(model, flat, distance_range, threads)
