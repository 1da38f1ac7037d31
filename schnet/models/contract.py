"""What a model is: hyper-parameters, and what all architectures share.

An architecture is one file ``schnet/models/NAME.py`` with a dataclass ``Hyperparameters``, a
subclass of ``BaseHyperparameters``, and a subclass of ``Model`` that adds ``atomwise(batch)``.
Shapes: B structures with N atoms and P unordered pairs of neighbours in a batch. Lengths in Å;
energies in whatever unit the model was trained on.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar

import torch
from ase.data import atomic_masses, chemical_symbols
from torch import Tensor, nn

from schnet.data.structures import Batch, check_numbers
from schnet.errors import ConfigError, DataError, ModelError

MAX_Z = 100  # atomic numbers are smaller
READOUTS = ("sum", "mean", "dipole")


@dataclass(frozen=True, kw_only=True)
class BaseHyperparameters:
    """What every architecture has; a subclass adds its own fields, with defaults.

    Values are checked against the types of the fields where these are int, float, bool, str or
    ``… | None``. A subclass limits them further in ``__post_init__``, after that of this class.

    Attributes:
        readout: how atomwise contributions make the property: ``sum``, ``mean``, or ``dipole``
            (the norm of the sum of charges times positions).
        cutoff: atoms see their neighbours within this distance in Å; None: all pairs of a molecule.
    """

    #: hyper-parameter -> the letter that stands for it in the name of a run, "T" makes "T6"
    SHORT: ClassVar[dict[str, str]] = {}

    readout: str = "sum"
    cutoff: float | None = None

    def __post_init__(self):
        for name, annotation in typing.get_type_hints(type(self)).items():
            if typing.get_origin(annotation) is not ClassVar:
                check_type(name, getattr(self, name), annotation)
        self.require(
            self.readout in READOUTS,
            f"readout: {self.readout!r} is none of {', '.join(READOUTS)}",
        )
        self.require_positive("cutoff")

    def require(self, condition: bool, message: str) -> None:
        """Raise ConfigError with this message unless the condition holds."""
        if not condition:
            raise ConfigError(f"model: {message}")

    def require_positive(self, *names: str) -> None:
        """Raise ConfigError unless each of the named hyper-parameters is positive or None."""
        for name in names:
            value = getattr(self, name)
            self.require(value is None or value > 0, f"{name}: {value!r} is not positive")


def check_type(name: str, value, annotation) -> None:
    """Raise ConfigError unless a value is of the plain type that its field declares."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    allowed = typing.get_args(annotation) if union else (annotation,)
    if not set(allowed) <= {int, float, bool, str, types.NoneType}:
        return
    if isinstance(value, bool):
        fits = bool in allowed
    elif isinstance(value, int) and float in allowed:
        fits = True
    else:
        fits = isinstance(value, allowed)
    if not fits:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        wanted = " or ".join(words.get(kind, "null") for kind in allowed)
        hint = _as_number(value) if float in allowed else ""
        raise ConfigError(f"model: {name}: {value!r} is not {wanted}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"model: {name}: {value!r} is not a finite number")


def _as_number(value) -> str:
    """How a text that Python would take for a number is written in YAML: 1.0e-10, not 1e-10."""
    try:
        digits, _, exponent = f"{float(value):e}".partition("e")
    except (TypeError, ValueError):
        return ""
    return f"; in YAML {float(digits)}e{int(exponent):+d}"


@dataclass(frozen=True, kw_only=True)
class Components:
    """What a model is made of, in a few words each: a line of the table of architectures.

    Attributes:
        source: who published the architecture.
        embedding: what an atom (or a message) starts as.
        basis: the functions that distances and angles are expanded in.
        message: what neighbours send: the filter, or what takes its place.
        cutoff: where messages end.
        update: how the state takes in messages.
        readout: from the last state to the output.
    """

    source: str
    embedding: str
    basis: str
    message: str
    cutoff: str
    update: str
    readout: str


class Model(nn.Module):
    """The base of all architectures: offsets in float64, readout, forces, elements seen.

    ``model(batch)`` gives the scaled output [B] of every structure, and ``model(batch) +
    model.offset(batch)`` the property: the mean per atom (or per structure, where the readout is
    not a sum) and single-atom references are added in float64, so that large constants never enter
    float32. Subclasses implement ``atomwise``; or ``forward``, where the property is no readout of
    atomwise contributions.

    Attributes:
        hyperparameters: an instance of the architecture's Hyperparameters.
        scale: factor of the network's output, float64.
        mean: mean of the target, per atom where the readout is a sum, float64.
        atomrefs: single-atom values by atomic number, float64 [100].
        elements: whether an atomic number occurred in the training data, bool [100]; nowhere true
            where that is not known.
        target, unit, force_unit, kind, provenance: of the model file, see ``load_model``.
    """

    #: name of the architecture: that of its file
    name: ClassVar[str]
    #: whether ``atomwise`` heeds ``batch.sends``, as local chemical potentials need it
    probes: ClassVar[bool] = False
    #: whether moving or turning a structure leaves its energy as it is; baselines may not
    invariant: ClassVar[bool] = True
    #: structures at a time when errors are computed and test structures predicted
    evaluation_batch: ClassVar[int] = 256

    scale: Tensor
    mean: Tensor
    atomrefs: Tensor
    elements: Tensor
    masses: Tensor

    target: str = "energy"
    unit: str = "eV"
    force_unit: str | None = None
    kind: str | None = None
    provenance: dict = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, hyperparameters: BaseHyperparameters):
        super().__init__()
        self.hyperparameters = hyperparameters
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("atomrefs", torch.zeros(MAX_Z, dtype=torch.float64))
        self.register_buffer("elements", torch.zeros(MAX_Z, dtype=torch.bool))
        masses = torch.tensor(atomic_masses[:MAX_Z], dtype=torch.float64)
        self.register_buffer("masses", masses, persistent=False)

    def _apply(self, fn, recurse=True):
        """Module.to, .float, .double, …: buffers change their device but never their type.

        A mean of -477,120 kcal/mol in float32 would cost 0.02 kcal/mol of every energy.
        """
        kept = {
            (module, name): buffer
            for module in self.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        }
        super()._apply(fn, recurse)
        for (module, name), buffer in kept.items():
            module._buffers[name] = buffer.to(module._buffers[name].device)
        return self

    # ---- what an architecture adds ---------------------------------------------------------------
    def atomwise(self, batch: Batch) -> Tensor:
        """The contribution of every atom, [N], before scale and offsets."""
        raise NotImplementedError(f"{type(self).__name__} has neither atomwise nor forward")

    def components(self) -> Components:
        """What the model is made of, with its own numbers.

        Raises:
            ModelError: the architecture does not say.
        """
        raise ModelError(f"{type(self).__name__}: add components(), which says what it is made of")

    # ---- what all share --------------------------------------------------------------------------
    def forward(self, batch: Batch) -> Tensor:
        """Scaled output [B] without the offset; add ``offset(batch)`` for the property."""
        return self.scale.to(batch.positions.dtype) * self.readout(self.atomwise(batch), batch)

    def readout(self, y: Tensor, batch: Batch) -> Tensor:
        """Sum or mean over the atoms (Sec. II E), or the dipole layer, [N] -> [B].

        The dipole layer is |sum_i q_i (r_i - r_0)| with charges q = y and the centre of mass r_0:
        an addition to the paper (K. T. Schütt's later work).
        """
        if self.hyperparameters.readout == "dipole":
            return self._dipole(y, batch)
        zeros = torch.zeros(len(batch), dtype=y.dtype, device=y.device)
        sums = zeros.index_add(0, batch.structure, y)
        return sums / batch.n_atoms if self.hyperparameters.readout == "mean" else sums

    def _dipole(self, charges: Tensor, batch: Batch) -> Tensor:
        structure, r = batch.structure, batch.positions
        mass = self.masses.to(charges)[batch.atomic_numbers.long()]
        scalars = torch.zeros(len(batch), dtype=charges.dtype, device=charges.device)
        vectors = torch.zeros(len(batch), 3, dtype=charges.dtype, device=charges.device)
        total = scalars.index_add(0, structure, mass)
        centre = vectors.index_add(0, structure, mass[:, None] * r) / total[:, None]
        dipole = vectors.index_add(0, structure, charges[:, None] * (r - centre[structure]))
        # the norm has no gradient at zero: a small number under the root gives it one
        return (dipole.square().sum(1) + 1e-12).sqrt()

    def energy_and_forces(self, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energies [B] without the offset and forces -dE/dr [N, 3] (Eq. 4), by autograd.

        Args:
            batch: the structures.
            create_graph: keep the graph, so that losses on energies and forces can be
                differentiated by the parameters.
        """
        with torch.enable_grad():
            positions = batch.positions.detach().requires_grad_()
            energy = self(replace(batch, positions=positions))
            (gradient,) = torch.autograd.grad(
                energy.sum(), positions, create_graph=create_graph, materialize_grads=True
            )
        return (energy if create_graph else energy.detach()), -gradient

    def offset(self, batch: Batch) -> Tensor:
        """What is added to the model's output, [B] in float64."""
        references = self.atomrefs[batch.atomic_numbers.long()]
        n_atoms = batch.n_atoms.to(torch.float64)
        zeros = torch.zeros(len(batch), dtype=torch.float64, device=references.device)
        total = zeros.index_add(0, batch.structure, references)
        if self.hyperparameters.readout == "sum":
            return n_atoms * self.mean + total
        if self.hyperparameters.readout == "mean":
            return self.mean + total / n_atoms
        return self.mean.expand(len(batch))

    def set_offsets(self, *, scale: float, mean: float, atomrefs=None) -> None:
        """Set what the output is multiplied by and what is added to it.

        Args:
            scale: factor of the network's output.
            mean: per atom where the readout is a sum, per structure otherwise.
            atomrefs: single-atom values by atomic number [100]; None leaves them as they are.
        """
        self.scale.fill_(scale)
        self.mean.fill_(mean)
        if atomrefs is not None:
            self.atomrefs.copy_(torch.as_tensor(atomrefs, dtype=torch.float64))

    def set_elements(self, atomic_numbers) -> None:
        """Remember the elements of the training data, given by the atomic numbers of its atoms."""
        seen = torch.as_tensor(atomic_numbers).long().unique()
        self.elements.zero_()
        self.elements[seen.to(self.elements.device)] = True

    def check_elements(self, atomic_numbers: Tensor) -> None:
        """Refuse atoms of elements that the training data did not have.

        Nothing is refused by a model that does not know (files of earlier versions).

        Raises:
            DataError: naming the first such element and those that the model was trained on; or an
                atomic number that no model knows.
        """
        present = atomic_numbers.detach().cpu().long().unique()
        check_numbers(present.numpy())
        known = self.elements.cpu()
        if not known.any():
            return
        unseen = present[~known[present]].tolist()
        if unseen:
            trained = ", ".join(chemical_symbols[z] for z in known.nonzero().flatten().tolist())
            raise DataError(
                f"element {chemical_symbols[unseen[0]]}: the model has never seen it; "
                f"it was trained on {trained}"
            )

    @property
    def usual_cutoff(self) -> str:
        """The cutoff where it is the neighbour list's, for ``components``."""
        cutoff = self.hyperparameters.cutoff
        return "none: all pairs" if cutoff is None else f"{cutoff:g} Å"

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters())

    def describe(self) -> dict:
        """The hyper-parameters as a dictionary of plain values."""
        return asdict(self.hyperparameters)


def hyperparameter_names(cls: type[BaseHyperparameters]) -> list[str]:
    """Names of all hyper-parameters of an architecture, in the order of their declaration."""
    return [field.name for field in fields(cls)]
