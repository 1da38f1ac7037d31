"""Does a model do what the contract (schnet/models/contract.py) and physics demand?"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from ase import Atoms
from torch import Tensor

from schnet.data.structures import Batch, Room, Structures, from_atoms
from schnet.errors import DataError, ModelError
from schnet.models.contract import Model
from schnet.models.registry import build

SEED = 20180313
SCALE, MEAN = 1.7, -23856.0176  # of the offsets; a mean that float32 would round
TRAINED_ON = (1, 6, 8)
UNSEEN = 9
STEP = 1e-5  # Å, of the finite differences


@dataclass(frozen=True)
class Sample:
    """Structures to validate with, in float64, and the model's energies and forces of them."""

    model: Model
    structures: list[Atoms]
    energy: Tensor
    forces: Tensor


def validate_model(model: Model | str, **hyperparameters) -> None:
    """Check a model against the contract; nothing is returned where all checks pass.

    The checks use a copy with random weights and offsets: a fresh model may well predict zero,
    which would obey every symmetry. They are: dependence on the positions; translation, rotation
    and permutation; independence of the other structures of a batch and of what fills it up; forces
    -dE/dr against finite differences; precision of float32 and of the offsets; save and load;
    that elements which were not in the training data are refused; probes, where it has them; and
    that the model says what it is made of.

    Args:
        model: a model, or the name of an architecture to build.
        hyperparameters: of the architecture, where a name is given.

    Raises:
        ModelError: a check fails; the message names the model, the check and the difference.

    Example:
        >>> validate_model("schnet", n_interactions=1, n_features=16)
    """
    if isinstance(model, str):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)  # the same weights every time
            model = build(model, hyperparameters)
    random = _randomised(model)
    structures = _structures(random.hyperparameters.cutoff)
    energy, forces = _evaluate(random, structures)
    sample = Sample(random, structures, energy, forces)
    for check in CHECKS:
        check(sample)


def _randomised(model: Model) -> Model:
    """A copy in float64 with random weights and offsets, trained on hydrogen, carbon and oxygen."""
    generator = torch.Generator().manual_seed(SEED)
    random = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    for parameter in random.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        # smaller weights and little noise: deep networks would explode, and leave finite
        # differences nothing smooth to look at
        inputs = parameter.shape[-1] if parameter.ndim > 1 else 1
        parameter.mul_(0.6).add_(noise, alpha=0.2 / inputs**0.5)
    atomrefs = torch.randn(len(random.atomrefs), generator=generator, dtype=torch.float64)
    random.set_offsets(scale=SCALE, mean=MEAN, atomrefs=atomrefs)
    random.set_elements(torch.tensor(TRAINED_ON))
    return random


def _structures(cutoff: float | None) -> list[Atoms]:
    """Molecules of several sizes, and crystals where there is a cutoff."""
    from ase.build import bulk, molecule  # slow to import, and rarely needed

    structures = [molecule(name) for name in ("CH3CH2OH", "H2O", "C6H6", "CO")]
    if cutoff is not None:
        structures += [
            bulk("C", "diamond", a=3.6),
            bulk("CO", "rocksalt", a=min(4.0, 1.9 * cutoff), cubic=True),
        ]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=k)
    return structures


def _load(model: Model, structures: list[Atoms], dtype=torch.float64) -> Structures:
    return from_atoms(structures, cutoff=model.hyperparameters.cutoff, dtype=dtype)


def _evaluate(model: Model, structures: list[Atoms]) -> tuple[Tensor, Tensor]:
    """Energies [B] without the offset and forces [N, 3] of structures in one batch."""
    data = _load(model, structures)
    return model.energy_and_forces(data.batch(torch.arange(len(data))))


def _fail(model: Model, check: str, what: str):
    raise ModelError(f"{type(model).__name__}: {check}: {what}")


def _same(model: Model, check: str, what: str, found, expected, tolerance: float = 1e-8) -> None:
    """ModelError where tensors differ by more than a tolerance relative to the largest value."""
    if found.shape != expected.shape:
        _fail(
            model, check, f"{what} of shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
        )
    size = max(1.0, float(expected.abs().max()))
    difference = float((found.double() - expected.double()).abs().max()) / size
    if not difference <= tolerance:  # also where it is not a number
        _fail(model, check, f"the {what} differ by {difference:.1e} (relative)")


def _compare_moved(sample: Sample, check: str, moved: list[Atoms], expected_forces: Tensor):
    energy, forces = _evaluate(sample.model, moved)
    _same(sample.model, check, "energies", energy, sample.energy)
    _same(sample.model, check, "forces", forces, expected_forces)


# ---- the checks
# -----------------------------------------------------------------------------------
def shapes(sample: Sample) -> None:
    """One number for every structure, one vector for every atom, which depend on the input."""
    n_atoms = sum(map(len, sample.structures))
    model = sample.model
    if sample.energy.shape != (len(sample.structures),) or sample.forces.shape != (n_atoms, 3):
        _fail(
            model,
            "shapes",
            f"{len(sample.structures)} energies and {n_atoms} × 3 forces expected, not "
            f"{tuple(sample.energy.shape)} and {tuple(sample.forces.shape)}",
        )
    if not sample.energy.isfinite().all():
        _fail(model, "shapes", "an energy is not a finite number")
    if sample.forces.abs().max() < 1e-6:
        _fail(model, "shapes", "the output does not depend on the positions")


def translation(sample: Sample) -> None:
    """Energies and forces do not change when all atoms move together, where they must not."""
    if not sample.model.invariant:
        return
    moved = [atoms.copy() for atoms in sample.structures]
    for atoms in moved:
        atoms.positions += [0.7, -1.3, 2.1]
    _compare_moved(sample, "translation", moved, sample.forces)


def rotation(sample: Sample) -> None:
    """Energies do not change when a structure turns, and forces turn with it, where they must."""
    if not sample.model.invariant:
        return
    generator = torch.Generator().manual_seed(SEED)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    if torch.linalg.det(turn) < 0:
        turn = -turn  # a rotation, no reflection
    moved = [atoms.copy() for atoms in sample.structures]
    for atoms in moved:
        atoms.set_cell(atoms.cell.array @ turn.numpy())
        atoms.positions = atoms.positions @ turn.numpy()
    _compare_moved(sample, "rotation", moved, sample.forces @ turn)


def permutation(sample: Sample) -> None:
    """The order of the atoms does not matter."""
    reversed_atoms = [atoms[::-1] for atoms in sample.structures]
    parts = sample.forces.split([len(atoms) for atoms in sample.structures])
    _compare_moved(
        sample, "permutation", reversed_atoms, torch.cat([part.flip(0) for part in parts])
    )


def batch_mates(sample: Sample) -> None:
    """A structure's energy and forces are the same alone and in a batch."""
    alone = [_evaluate(sample.model, [atoms]) for atoms in sample.structures]
    energy = torch.cat([energy for energy, _ in alone])
    forces = torch.cat([forces for _, forces in alone])
    _same(sample.model, "batch mates", "energies", energy, sample.energy)
    _same(sample.model, "batch mates", "forces", forces, sample.forces)


def padding(sample: Sample) -> None:
    """What fills a batch up to a fixed size changes nothing."""
    model = sample.model
    data = _load(model, sample.structures)
    indices = torch.arange(len(data))
    n_atoms, n_pairs = data.size(indices)
    room = Room(n_atoms + 7, n_pairs + 50, (1.0, model.hyperparameters.cutoff or 8.0))
    energy, forces = model.energy_and_forces(data.batch(indices, room))
    _same(model, "padding", "energies", energy[: len(data)], sample.energy)
    _same(model, "padding", "forces", forces[:n_atoms], sample.forces)


def forces_are_gradients(sample: Sample) -> None:
    """F = -dE/dr (Eq. 4), by finite differences along one direction for every structure.

    Of the fourth order: deep networks with random weights have large third derivatives.
    """
    generator = torch.Generator().manual_seed(SEED)
    data = _load(sample.model, sample.structures)
    batch = data.batch(torch.arange(len(data)))
    direction = torch.randn(sample.forces.shape, generator=generator, dtype=torch.float64)
    slope = torch.zeros(len(data), dtype=torch.float64)
    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved = replace(batch, positions=batch.positions + steps * STEP * direction)
        slope += weight * sample.model(moved) / (12 * STEP)
    zeros = torch.zeros(len(data), dtype=torch.float64)
    work = zeros.index_add(0, batch.structure, (sample.forces * direction).sum(1))
    _same(sample.model, "forces = -dE/dr", "slopes", work, -slope, tolerance=1e-5)


def precision(sample: Sample) -> None:
    """Offsets are exact float64 whatever the weights are; float32 agrees with float64."""
    model = copy.deepcopy(sample.model).float()
    data = _load(model, sample.structures, torch.float32)
    batch = data.batch(torch.arange(len(data)))
    offset, right = model.offset(batch), []
    for atoms in sample.structures:
        references = float(sample.model.atomrefs[torch.as_tensor(atoms.numbers)].sum())
        of_readout = {
            "sum": len(atoms) * MEAN + references,
            "mean": MEAN + references / len(atoms),
            "dipole": MEAN,
        }
        right.append(of_readout[model.hyperparameters.readout])
    if offset.dtype != torch.float64:
        _fail(model, "precision", f"the offset is {offset.dtype}, not float64")
    expected = torch.tensor(right, dtype=torch.float64)
    _same(model, "precision", "offsets", offset, expected, tolerance=1e-12)
    energy, forces = model.energy_and_forces(batch)
    if energy.dtype != torch.float32 or forces.dtype != torch.float32:
        _fail(model, "precision", f"float32 comes back as {energy.dtype} and {forces.dtype}")
    _same(model, "precision", "energies", energy, sample.energy, tolerance=1e-4)
    _same(model, "precision", "forces", forces, sample.forces, tolerance=1e-3)


def save_and_load(sample: Sample) -> None:
    """Plain tensors and hyper-parameters hold all of a model."""
    model = sample.model
    file = io.BytesIO()
    torch.save({"hyperparameters": model.describe(), "state": model.state_dict()}, file)
    file.seek(0)
    try:
        content = torch.load(file, weights_only=True)
        loaded = type(model)(type(model.hyperparameters)(**content["hyperparameters"])).double()
        loaded.load_state_dict(content["state"])
    except Exception as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{type(model).__name__}: save and load: {reason}") from error
    energy, forces = _evaluate(loaded.eval(), sample.structures)
    _same(model, "save and load", "energies", energy, sample.energy, tolerance=0.0)
    _same(model, "save and load", "forces", forces, sample.forces, tolerance=0.0)
    if not torch.equal(loaded.elements, model.elements):
        _fail(model, "save and load", "the elements seen in training are lost")


def unseen_elements(sample: Sample) -> None:
    """Elements of the training data are taken, others refused."""
    model = sample.model
    model.check_elements(torch.tensor(TRAINED_ON))
    try:
        model.check_elements(torch.tensor([*TRAINED_ON, UNSEEN]))
    except DataError:
        return
    _fail(model, "unseen elements", "an element that was not in the training data is accepted")


def probes(sample: Sample) -> None:
    """Where a model has probes, atoms that send nothing change no other atom, and sense all."""
    model = sample.model
    if not model.probes:
        return
    data = _load(model, sample.structures[:1])
    batch = data.batch(torch.arange(1))
    ones = torch.ones(len(batch.positions), dtype=torch.float64)
    whole = model.atomwise(batch)
    _same(model, "probes", "outputs of atoms that all send", _sent(model, batch, ones), whole)
    last = ones.clone()
    last[-1] = 0.0
    quiet = _sent(model, batch, last)
    moved = batch.positions.clone()
    moved[-1] += 0.3
    other = _sent(model, replace(batch, positions=moved), last)
    _same(model, "probes", "outputs of atoms beside a moved probe", other[:-1], quiet[:-1])
    if (other[-1] - quiet[-1]).abs() < 1e-6:
        _fail(model, "probes", "a probe does not sense the atoms around it")


def _sent(model: Model, batch: Batch, sends: Tensor) -> Tensor:
    return model.atomwise(replace(batch, sends=sends))


def components(sample: Sample) -> None:
    """The model says what it is made of, every part of it in some words."""
    found = sample.model.components()
    empty = [name for name, text in asdict(found).items() if not text.strip()]
    if empty:
        _fail(sample.model, "components", f"{', '.join(empty)}: say it in a few words")


CHECKS: tuple[Callable[[Sample], None], ...] = (
    shapes,
    translation,
    rotation,
    permutation,
    batch_mates,
    padding,
    forces_are_gradients,
    precision,
    save_and_load,
    unseen_elements,
    probes,
    components,
)
