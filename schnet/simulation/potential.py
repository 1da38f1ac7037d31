"""What moves the atoms: copies of one structure, evaluated by one or several models in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from schnet.data.neighbours import checked_pairs
from schnet.data.structures import Batch, from_atoms
from schnet.engine.inference import Predictor
from schnet.errors import ConfigError, DataError, ModelError
from schnet.models import Model, load_model
from schnet.models.files import kind_of
from schnet.trained import find_model
from schnet.training_range import caution_of_close_atoms, cautions, distances_of, warn_once
from schnet.units import factor

SHORTEST = 0.3  # Å: atoms that are closer are refused
PER_ATOM = ("eV/atom", "meV/atom")
SKIN = 0.5  # Å beyond the cutoff in which pairs are kept from step to step

#: energies [B] in eV and forces [B, n, 3] in eV/Å at positions [B, n, 3] in Å
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def energy_factor(model: Model, n_atoms: int) -> float:
    """What the output of a model is multiplied by to be the energy of a structure in eV.

    An energy here is that of the whole structure, of which -dE/dr are the forces: the property is
    of the kind "energy" and the readout a sum over atoms, or it is an energy per atom and the
    readout a mean, such as the formation energy of crystals, which is counted from the elements.
    Orbital energies and enthalpies are none, although their unit may be eV.

    Args:
        model: the model.
        n_atoms: in the structure.

    Raises:
        ModelError: the model predicts something else.
    """
    what = f"the model predicts {model.target} in {model.unit}"
    if model.hyperparameters.readout == "mean" and model.unit in PER_ATOM:
        return n_atoms * factor(model.unit, "eV/atom")
    if (model.kind or kind_of(model.target, model.force_unit)) != "energy":
        raise ModelError(f"{what}, not a total energy with forces; use `schnet predict`")
    if model.hyperparameters.readout != "sum":
        raise ModelError(
            f"{what} by a {model.hyperparameters.readout} over atoms, not the energy of the whole "
            "structure; train with readout: sum on total energies"
        )
    try:
        return factor(model.unit, "eV")
    except ValueError as error:
        raise ModelError(f"{what}, which is not an energy ({error})") from error


def load_models(models) -> list[Model]:
    """Models from a path, a name (`find_model`), a Model, or a sequence of these: a committee.

    Raises:
        ModelError: a file cannot be used, or its energy depends on where a structure lies.
        ConfigError: there is no model.
    """
    if isinstance(models, str | Path | Model):
        models = [models]
    models = [m if isinstance(m, Model) else load_model(find_model(m)) for m in models]
    if not models:
        raise ConfigError("no model given; name at least one model file")
    for model in models:
        if not model.invariant:
            raise ModelError(
                f"{model.name}: moving or turning a structure changes its energy, so it is no "
                "potential; `schnet predict` takes structures as they lie"
            )
    return models


class NeighbourList:
    """Pairs of one structure within a cutoff; found anew only when atoms have moved far.

    Pairs within the cutoff plus a skin are kept until an atom has moved by half of the skin, or the
    cell has changed; those within the cutoff are picked from them every time. Their order depends
    on nothing but which pairs they are, so neither do the bits of what is computed from them.

    Args:
        cutoff, skin: in Å.

    Attributes:
        searches: how often pairs were looked for.
    """

    def __init__(self, cutoff: float, skin: float = SKIN):
        self.cutoff, self.skin = cutoff, skin
        self.searches = 0
        self._reference: np.ndarray | None = None
        self._cell: np.ndarray | None = None

    def pairs(self, positions: np.ndarray, cell: np.ndarray | None, where: str = "structure"):
        """i [P], j [P] and shift [P, 3] in Å: the neighbour of i is at positions[j] + shift.

        Args:
            positions: [n, 3] in Å.
            cell: [3, 3] in Å; None without periodicity.
            where: the structure's name in errors.

        Raises:
            DataError: an atom of a crystal has no neighbour.
        """
        if self._outdated(positions, cell):
            self._search(positions, cell, where)
        r = positions[self._j] - positions[self._i] + self._shift
        near = np.einsum("pc,pc->p", r, r) < self.cutoff**2
        return self._i[near], self._j[near], self._shift[near]

    def _outdated(self, positions, cell) -> bool:
        if self._reference is None or len(self._reference) != len(positions):
            return True
        if (cell is None) != (self._cell is None):
            return True
        if cell is not None and (cell != self._cell).any():
            return True
        moved = positions - self._reference
        return np.einsum("nc,nc->n", moved, moved).max() > (0.5 * self.skin) ** 2

    def _search(self, positions, cell, where) -> None:
        i, j, images = checked_pairs(positions, cell, self.cutoff + self.skin, where)
        backwards = (i > j) | ((i == j) & (_leading_sign(images) < 0))
        i, j = np.where(backwards, j, i), np.where(backwards, i, j)
        images = np.where(backwards[:, None], -images, images)
        order = np.lexsort((*images.T, j, i))
        self._i, self._j = i[order], j[order]
        shift = images[order].astype(float)
        self._shift = shift @ cell if cell is not None else shift
        self._reference = positions.copy()
        self._cell = None if cell is None else np.array(cell, float)
        self.searches += 1


def _leading_sign(images: np.ndarray) -> np.ndarray:
    """Sign of the first number that is not zero, [P]."""
    a, b, c = np.sign(images).T
    return np.where(a != 0, a, np.where(b != 0, b, c))


class Copies:
    """Batches of copies of one structure at changing positions, made with as little work as can be.

    Args:
        atoms: the structure.
        cutoff: of the model in Å, or None.
        copies: how many, B.
        skin: of the neighbour lists in Å.
        device, dtype: of the batches.

    Raises:
        DataError: see ``from_atoms``.
    """

    def __init__(self, atoms: Atoms, cutoff: float | None, copies: int, skin: float, device, dtype):
        self.cutoff, self.device, self.dtype = cutoff, device, dtype
        self._rounded = torch.empty(0, dtype=dtype).numpy().dtype
        self.name = atoms.get_chemical_formula()
        self.lists = [NeighbourList(cutoff, skin) for _ in range(copies)] if cutoff else []
        # also checks periodicity and elements; without a cutoff its pairs stay
        structures = from_atoms([atoms] * copies, cutoff=cutoff, device=device, dtype=dtype)
        self._batch = structures.batch(torch.arange(copies, device=device))

    def distances(self) -> tuple[float, float]:
        """Smallest and largest distance in Å of the pairs of the present batch."""
        return distances_of(self._batch)

    def batch(self, positions: np.ndarray, cell: np.ndarray | None) -> Batch:
        """The copies at positions [B, n, 3] in Å; cell [3, 3] in Å or None."""
        finite = np.isfinite(positions)
        if not finite.all():
            atom = int(np.argwhere(~finite)[0, 1])
            raise DataError(f"{self.name}: the position of atom {atom} is not a finite number")
        # about the centre of each: far from the origin float32 would round the distances
        centred = positions - positions.mean(1, keepdims=True)
        # rounded by numpy: PyTorch's conversion costs more than it does
        rounded = centred.reshape(-1, 3).astype(self._rounded)
        moved = torch.from_numpy(rounded).to(self.device)
        if self.cutoff is None:
            self._batch.positions = moved
            return self._batch
        n = positions.shape[1]
        found = [
            each.pairs(r, cell, self.name) for each, r in zip(self.lists, positions, strict=True)
        ]
        counts = [len(i) for i, _, _ in found]
        i = np.concatenate([i + k * n for k, (i, _, _) in enumerate(found)])
        j = np.concatenate([j + k * n for k, (_, j, _) in enumerate(found)])
        neighbours = np.bincount(i, minlength=len(moved)) + np.bincount(j, minlength=len(moved))
        self._batch = replace(
            self._batch,
            positions=moved,
            pair_ptr=self._tensor(np.concatenate([[0], np.cumsum(counts)]), torch.int64),
            i=self._tensor(i, torch.int32),
            j=self._tensor(j, torch.int32),
            shift=self._tensor(np.concatenate([s for *_, s in found]), self.dtype),
            # at least 1: an atom without neighbours has no response that could be divided
            n_neighbours=self._tensor(np.maximum(neighbours, 1), self.dtype),
        )
        return self._batch

    def _tensor(self, array, dtype) -> Tensor:
        return torch.as_tensor(array).to(device=self.device, dtype=dtype)


@dataclass
class Evaluation:
    """What M models say of B copies of a structure with n atoms.

    Attributes:
        energies: [M, B] in eV.
        forces: [M, B, n, 3] in eV/Å.
    """

    energies: np.ndarray
    forces: np.ndarray


class Potential:
    """Energies and forces of B copies of one structure: beads of a ring polymer, or one frame.

    Called with positions [B, n, 3] it returns the committee's mean energies [B] and forces
    [B, n, 3], in eV and eV/Å.

    Args:
        models: path of a model file, a Model, or several of them (a committee).
        atoms: the structure: elements, cell and periodicity.
        copies: B.
        device: "cpu" or "cuda".
        threads: of the C++ engine.
        engine: auto, native, table or reference.
        skin: of neighbour lists in Å.

    Raises:
        ModelError: a model does not predict total energies, see ``energy_factor``.
        DataError: an element that a model was not trained on, or a periodic structure for a model
            without a cutoff.
    """

    def __init__(
        self,
        models,
        atoms: Atoms,
        copies: int = 1,
        *,
        device: str = "cpu",
        threads: int = 1,
        engine: str = "auto",
        skin: float = SKIN,
    ):
        self.models = load_models(models)
        self.predictors = [
            Predictor(m, device=device, threads=threads, engine=engine, shortest=SHORTEST)
            for m in self.models
        ]
        self.skin = skin
        self.bind(atoms, copies)

    def bind(self, atoms: Atoms, copies: int = 1) -> None:
        """Take another structure."""
        self.cell = atoms.cell.array.copy() if atoms.pbc.any() else None
        self.factors = [energy_factor(m, len(atoms)) for m in self.models]
        self.formula = atoms.get_chemical_formula()
        # models that want the same batch share it
        makers: dict[tuple, Copies] = {}
        self.copies = []
        for p in self.predictors:
            cutoff = p.model.hyperparameters.cutoff
            key = cutoff, p.dtype
            if key not in makers:
                makers[key] = Copies(atoms, cutoff, copies, self.skin, p.device, p.dtype)
            self.copies.append(makers[key])
        self.atoms = atoms.copy()
        self.caution()

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        """Every model's energies and forces at positions [B, n, 3] in Å.

        Raises:
            DataError: two atoms closer than 0.3 Å, or a position that is not a number.
        """
        batches = {id(c): c.batch(positions, self.cell) for c in self.copies}
        energies, forces = [], []
        for p, copies, eV in zip(self.predictors, self.copies, self.factors, strict=True):
            e, f = p(batches[id(copies)], forces=True)
            assert f is not None
            energies.append(e.cpu().numpy() * eV)
            forces.append(f.cpu().numpy().astype(float).reshape(positions.shape) * eV)
        # the same atoms for all models: one look at their distances is enough
        shortest = self.predictors[-1].shortest_distance(batches[id(self.copies[-1])])
        for model in self.models:
            close = caution_of_close_atoms(model, shortest)
            if close:
                warn_once(model, self.formula, "close", close)
        return Evaluation(np.array(energies), np.array(forces))

    def caution(self) -> None:
        """Log, once, in which respects the copies are unlike what the models were trained on."""
        for p, copies in zip(self.predictors, self.copies, strict=True):
            model = p.model
            if model.force_unit is None:
                text = (
                    f"the model was trained on {model.target} alone: its forces are derivatives "
                    "that were never compared with anything"
                )
                warn_once(model, self.formula, "forces", text)
            for respect, text in cautions(model, [self.atoms], copies.distances()).items():
                warn_once(model, self.formula, respect, text)

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean energies [B] in eV and forces [B, n, 3] in eV/Å, see ``evaluate``."""
        found = self.evaluate(positions)
        if len(self.models) == 1:
            return found.energies[0], found.forces[0]
        return found.energies.mean(0), found.forces.mean(0)

    def stress(self, positions: np.ndarray) -> np.ndarray:
        """Stress [M, 3, 3] in eV/Å³ of one periodic structure at positions [n, 3] in Å.

        dE/dε divided by the volume, for r → (1 + ε) r of atoms and cell, by automatic
        differentiation of the reference model: it serves every architecture. One evaluation takes
        as long as the reference engine, about twenty times the native one.
        """
        assert self.cell is not None
        volume = abs(np.linalg.det(self.cell))
        found = []
        for p, copies, eV in zip(self.predictors, self.copies, self.factors, strict=True):
            gradient = _strain_gradient(p.model, copies.batch(positions[None], self.cell))
            found.append(gradient.cpu().numpy().astype(float) * eV / volume)
        return np.array(found)


def _strain_gradient(model: Model, batch: Batch) -> Tensor:
    """dE/dε [3, 3], symmetrised, of a batch with one structure."""
    assert batch.shift is not None
    with torch.enable_grad():
        strain = torch.zeros(3, 3, dtype=batch.positions.dtype, device=batch.positions.device)
        strain.requires_grad_()
        strained = replace(
            batch,
            positions=batch.positions + batch.positions @ strain,
            shift=batch.shift + batch.shift @ strain,
        )
        (gradient,) = torch.autograd.grad(model(strained).sum(), strain)
    return 0.5 * (gradient + gradient.T)


class CalculatorPotential:
    """Any ASE calculator in the place of a ``Potential``: one structure at a time.

    Args:
        atoms: the structure, with its calculator.
    """

    def __init__(self, atoms: Atoms):
        if atoms.calc is None:
            raise ConfigError("the structure has no calculator")
        self.atoms = atoms

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies [B] in eV and forces [B, n, 3] in eV/Å at positions [B, n, 3] in Å."""
        energies, forces = [], []
        for r in positions:
            self.atoms.positions = r
            energies.append(self.atoms.get_potential_energy())
            forces.append(self.atoms.get_forces(apply_constraint=False))
        return np.array(energies), np.array(forces)


def potential(models, atoms: Atoms, copies: int = 1, **options) -> Evaluate:
    """What evaluates the structure: ``models`` themselves if they can be called with positions.

    Args:
        models: model files or Models (a committee), an ASE calculator, or a function of positions
            [B, n, 3] in Å that returns energies [B] in eV and forces [B, n, 3] in eV/Å.
        atoms: the structure.
        copies: B.
        options: of ``Potential``: device, threads, engine, skin.
    """
    if hasattr(models, "get_potential_energy"):
        bound = atoms.copy()
        bound.calc = models
        return CalculatorPotential(bound)
    if isinstance(models, str | Path | Model | Sequence):
        return Potential(models, atoms, copies, **options)
    return models
