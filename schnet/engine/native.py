"""The C++ engine behind a plain C interface (src/engine.h), loaded with ctypes.

No headers of PyTorch are involved, so one build serves all its versions.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from schnet.data.structures import Batch
from schnet.engine.table import Grid, coefficients
from schnet.errors import ConfigError, DataError, OutsideTable
from schnet.models.schnet import SchNet

BUILDS = ("plain", "avx2", "avx512")  # by the level that schnet_cpu_level() reports
INTERFACE = 2  # what schnet_interface() of the sources says
OUTSIDE_TABLE, WRONG_ELEMENT = 1, 2  # what schnet_forward returns; 0: all is well


def _find(build: str) -> Path | None:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_engine_{build}{suffix}"
        if path.exists():
            return path
    return None


@functools.cache
def library():
    """The best build for this CPU, or the reason (a string) why there is none.

    SCHNET_NATIVE selects a build by name (plain, avx2, avx512) or disables the engine ("off").
    """
    wanted = os.environ.get("SCHNET_NATIVE", "")
    if wanted == "off":
        return "disabled by SCHNET_NATIVE=off"
    plain = _find("plain")
    if plain is None:
        return "the C++ engine was not built (no compiler at install time?)"
    portable = ctypes.CDLL(str(plain))
    if not hasattr(portable, "schnet_interface") or portable.schnet_interface() != INTERFACE:
        return "the C++ engine was built from other sources (`pip install -e .` builds it anew)"
    level = portable.schnet_cpu_level()
    builds = BUILDS[: level + 1]
    if wanted and wanted not in builds:
        return f"SCHNET_NATIVE={wanted}: not a build this CPU runs ({', '.join(builds)})"
    names = [wanted] if wanted else list(reversed(builds))
    for name in names:
        path = _find(name)
        if path is not None:
            return _load(path, name)
    return f"no build among {', '.join(names)} was installed"


def _load(path: Path, build: str) -> ctypes.CDLL:
    """A build with the signatures of its functions, those at the end of src/engine.h."""
    lib = ctypes.CDLL(str(path))
    lib.build = build  # type: ignore[attr-defined]
    p, i64, f32, i32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    lib.schnet_create.restype = p
    lib.schnet_create.argtypes = [i32] * 6
    lib.schnet_destroy.argtypes = [p]
    lib.schnet_set_grid.argtypes = [p, f32, f32, i32, f32, p]
    lib.schnet_set_coefficients.argtypes = [p, f32, f32, i32, f32, p]
    lib.schnet_set_parameters.argtypes = [p, p]
    lib.schnet_build_table.argtypes = [p]
    lib.schnet_forward.argtypes = [p, i64, i64, i64, *[p] * 8, p, p, i32]
    lib.schnet_backward.argtypes = [p, p, p, p]
    lib.schnet_shortest.restype = f32
    lib.schnet_shortest.argtypes = [p]
    return lib


def unavailable() -> str | None:
    """The reason why there is no C++ engine on this machine, or None."""
    lib = library()
    return lib if isinstance(lib, str) else None


def _pointer(t: Tensor | None):
    return None if t is None else t.data_ptr()


class _Handle:
    """Owns a C++ Engine for one model's shape.

    It gives sums over atoms, or where the readout is none (``per_atom``) the atoms' contributions.
    """

    def __init__(self, model: SchNet, threads: int):
        self.lib = library()
        p = model.hyperparameters
        self.model = model
        self.n_elements = model.embedding.num_embeddings
        self.per_atom = p.readout == "dipole"
        self.pointer = self.lib.schnet_create(
            p.n_interactions, p.n_features, p.n_gaussians, self.n_elements, threads, self.per_atom
        )

    def __del__(self):
        if getattr(self, "pointer", None):
            self.lib.schnet_destroy(self.pointer)
            self.pointer = None

    def set_parameters(self, parameters):
        """Where the parameters are, and stay: the engine reads them again for every table."""
        self.parameters = list(parameters)  # keeps the memory alive
        self.pointers = (ctypes.c_void_p * len(self.parameters))(
            *(p.data_ptr() for p in self.parameters)
        )
        self.read_parameters()

    def read_parameters(self):
        """Tell the engine that the parameters have changed."""
        self.lib.schnet_set_parameters(self.pointer, self.pointers)

    def forward(
        self, batch: Batch, grid: Grid, forces: bool, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Energy sums [B] or atoms' contributions [N] in float64, and forces [N, 3] or None.

        Args:
            batch: the structures.
            grid: of the table in use.
            forces: whether they are wanted.
            keep: whether ``schnet_backward`` follows.

        Raises:
            OutsideTable: a distance is not in the grid.
            DataError: an atomic number that the model does not know.
            ConfigError: forces of a dipole moment.
        """
        if forces and self.per_atom:
            raise ConfigError("forces of a dipole moment: not an energy")
        n_neighbours = self.model.neighbour_counts(batch)
        scale = None if n_neighbours is None else 1 / n_neighbours
        inputs = [
            batch.atom_ptr,
            batch.pair_ptr,
            batch.atomic_numbers,
            batch.i,
            batch.j,
            batch.positions,
            batch.shift,
            scale,
        ]
        # kept: the engine reads them again in its backward sweep
        self.inputs = [t if t is None else t.contiguous() for t in inputs]
        n_results = len(batch.positions) if self.per_atom else len(batch)
        results = torch.empty(n_results, dtype=torch.float64)
        f = torch.empty(len(batch.positions), 3) if forces else None
        status = self.lib.schnet_forward(
            self.pointer,
            len(batch),
            len(batch.positions),
            len(batch.i),
            *map(_pointer, self.inputs),
            _pointer(results),
            _pointer(f),
            keep,
        )
        if status == OUTSIDE_TABLE:
            raise OutsideTable(grid.lo, grid.hi)
        if status == WRONG_ELEMENT:
            raise DataError(f"an atomic number is outside 1–{self.n_elements - 1}")
        return results, f

    def evaluate(self, batch: Batch, grid: Grid, forces: bool) -> tuple[Tensor, Tensor | None]:
        """The model's output [B] without offset and forces [N, 3] or None; see ``forward``."""
        results, f = self.forward(batch, grid, forces, keep=False)
        if self.per_atom:
            return _read_out(self.model, results, batch), None
        return _scaled(results, f, _scale(self.model, batch), batch)


def _read_out(model: SchNet, contributions: Tensor, batch: Batch) -> Tensor:
    """The model's output [B] from contributions of the atoms [N], in double precision."""
    exact = replace(batch, positions=batch.positions.double())
    return model.scale * model.readout(contributions.double(), exact)


def _scale(model: SchNet, batch: Batch):
    """What the engine's results are multiplied by: a number, or one per structure."""
    readout, scale = model.hyperparameters.readout, float(model.scale)
    if readout == "dipole":
        return 1.0  # contributions of atoms, scaled when they are read out
    return scale if readout == "sum" else scale / batch.n_atoms.float()


def _scaled(energy: Tensor, forces: Tensor | None, factor, batch: Batch):
    if forces is not None:
        forces = forces * (factor if isinstance(factor, float) else factor[batch.structure, None])
    return energy * factor, forces


class _Evaluate(torch.autograd.Function):
    """(E, F), or the atoms' contributions, as a function of the parameter vector.

    The engine's second sweep adds the gradient straight to the vector's ``grad``: no copy, no
    accumulation.
    """

    @staticmethod
    def forward(ctx, flat, engine, batch, forces):
        energy, f = engine.handle.forward(batch, engine.grid, forces, keep=True)
        ctx.engine, ctx.batch, ctx.factor = engine, batch, _scale(engine.model, batch)
        ctx.set_materialize_grads(False)
        ctx.generation = engine.generation = engine.generation + 1
        energy, f = _scaled(energy, f, ctx.factor, batch)
        return (energy.float(), f) if forces else energy.float()

    @staticmethod
    def backward(ctx, g_e, g_f=None):
        engine = ctx.engine
        if ctx.generation != engine.generation:
            raise RuntimeError("backward of an evaluation that another one has replaced")
        g_e = torch.zeros(len(ctx.batch)) if g_e is None else g_e
        g_e, g_f = _scaled(g_e, g_f, ctx.factor, ctx.batch)
        # named: they must live until the call returns
        g_e, g_f = g_e.contiguous(), None if g_f is None else g_f.contiguous()
        engine.handle.lib.schnet_backward(
            engine.handle.pointer, _pointer(g_e), _pointer(g_f), engine.gradients()
        )
        return None, None, None, None


class NativeEngine:
    """Training engine: (E, F) differentiable by the parameters, with quintic filter tables."""

    def __init__(self, model: SchNet, flat, distance_range, threads: int):
        self.model, self.flat = model, flat
        self.handle = _Handle(model, threads)
        self.handle.set_parameters(model.parameters())
        self.name = f"native ({self.handle.lib.build})"
        self.grid = grid = Grid.of(model, distance_range)
        self.basis = grid.basis(model).float().contiguous()
        self.generation = 0
        self.handle.lib.schnet_set_grid(
            self.handle.pointer, grid.lo, grid.h, grid.n_knots, grid.furthest, _pointer(self.basis)
        )
        self.refresh()

    def gradients(self):
        """Pointers to the parameters' places in the gradient of the parameter vector."""
        base = self.flat.tensor.grad.data_ptr()
        return (ctypes.c_void_p * len(self.flat.offsets))(
            *(base + 4 * o for o in self.flat.offsets)
        )

    def refresh(self):
        """Rebuild the filter table from the present parameters."""
        self.handle.read_parameters()
        self.handle.lib.schnet_build_table(self.handle.pointer)

    def __call__(self, batch: Batch, forces: bool):
        """Differentiable energies [B] (without offset) and forces [N, 3] or None."""
        self.refresh()
        out = _Evaluate.apply(self.flat.tensor, self, batch, forces)
        if self.handle.per_atom:
            return _read_out(self.model, out, batch).float(), None
        return out if forces else (out, None)

    def evaluate(self, batch: Batch, forces: bool):
        """The same without a graph, with the table of the last ``refresh``."""
        self.generation += 1
        return self.handle.evaluate(batch, self.grid, forces)


class FrozenEngine:
    """Inference engine: filter polynomials of every bin, computed in float64."""

    def __init__(self, model: SchNet, distance_range, threads: int = 1):
        self.model = model
        self.handle = _Handle(model, threads)
        self.handle.set_parameters(model.parameters())
        self.name = f"native ({self.handle.lib.build}), frozen table"
        self.grid = grid = Grid.of(model, distance_range, frozen=True)
        table = coefficients(model, grid)
        self.handle.lib.schnet_set_coefficients(
            self.handle.pointer, grid.lo, grid.h, grid.n_knots - 1, grid.furthest, _pointer(table)
        )

    def refresh(self):
        """Nothing to do: the weights are frozen."""

    def evaluate(self, batch: Batch, forces: bool):
        """Energies [B] (without offset) and forces [N, 3] or None."""
        return self.handle.evaluate(batch, self.grid, forces)

    @property
    def shortest(self) -> float:
        """The smallest distance in the last evaluation in Å; infinite without pairs."""
        return self.handle.lib.schnet_shortest(self.handle.pointer)
