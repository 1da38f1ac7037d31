"""What moves the atoms: energies and forces of copies of one structure, by one model or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from schnet.data.structures import Batch
from schnet.engine.inference import Predictor
from schnet.errors import ConfigError, ModelError
from schnet.models import Model, load_model
from schnet.models.files import kind_of
from schnet.simulation.copies import SKIN, Copies
from schnet.trained import find_model
from schnet.training_range import caution_of_close_atoms, cautions, warn_once
from schnet.units import factor

SHORTEST = 0.3  # Å: atoms that are closer are refused
PER_ATOM = ("eV/atom", "meV/atom")

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
