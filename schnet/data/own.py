"""A data set from any structure file that ASE reads, with labels in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from schnet.data.store import Property, Structure, write_store
from schnet.data.structures import read_images
from schnet.errors import ConfigError, DataError, known_or_nearest
from schnet.units import UNITS

log = logging.getLogger("schnet")
#: results of a calculator are in ASE's units, what else a file holds can be in any
ASE_UNIT = "eV"
ENERGIES = tuple(unit for unit, (quantity, _) in UNITS.items() if quantity == "energy")


def convert_file(
    source,
    out,
    *,
    target: str | None = None,
    forces: str | None = None,
    unit: str | None = None,
    cutoff: float | None = None,
) -> tuple[str, str | None]:
    """Convert a structure file with labels into a data set.

    Args:
        source: the file; an energy and forces that ASE reads as results of a calculator are called
            ``energy`` and ``forces``, other labels as they are called in the file.
        out: HDF5 file to write.
        target: the label of every structure to learn; None: ``energy``.
        forces: the label of every atom that is its negative gradient; "none": no forces; None:
            ``forces``, where all structures have them.
        unit: of the target (forces have it per Å); may be left out for results of a calculator,
            which are in eV.
        cutoff: in Å, of crystals; molecules are stored without.

    Returns:
        Names of the target and of the forces, None without.

    Raises:
        ConfigError: no such label, or its unit is neither given nor known.
        DataError: the file cannot be read, a structure lacks a label, or molecules and crystals
            are mixed.
    """
    images = read_images(source)
    periodic = is_periodic(source, images)
    target = _target(source, images, target)
    forces = _forces(source, images, forces)
    unit = _unit(images[0], target, unit)
    if forces is not None and unit not in ENERGIES:
        raise ConfigError(f"--forces {forces}: are no gradient of {target} in {unit}; say none")
    energy = forces is not None or "energy" in target
    properties = {target: Property(unit, target, kind="energy" if energy else "other")}
    if forces is not None:
        properties[forces] = Property(f"{unit}/Å", forces, per_atom=True, kind="forces")
    write_store(
        out,
        _structures(source, images, target, forces, periodic=periodic),
        properties,
        name=Path(source).stem,
        cutoff=cutoff if periodic else None,
        notes={"converted from": Path(source).name},
    )
    return target, forces


def is_periodic(source, images: list[Atoms]) -> bool:
    """Whether structures are crystals.

    Raises:
        DataError: some are and some are not, or one is periodic along one or two directions.
    """
    kinds = {tuple(bool(p) for p in atoms.pbc) for atoms in images}
    for k, atoms in enumerate(images):
        if atoms.pbc.any() and not atoms.pbc.all():
            raise DataError(
                f"{source}: structure {k} is periodic along {int(sum(atoms.pbc))} of three "
                "directions; leave empty space along the others and set pbc to T T T"
            )
    if len(kinds) > 1:
        raise DataError(f"{source}: has molecules and crystals; put them into files of their own")
    return bool(images[0].pbc.all())


def scalar_labels(atoms: Atoms) -> dict[str, float]:
    """Labels of a structure."""
    results = atoms.calc.results if atoms.calc is not None else {}
    return {k: float(v) for k, v in {**atoms.info, **results}.items() if _is_number(v)}


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def vector_labels(atoms: Atoms) -> dict[str, np.ndarray]:
    """Labels of the atoms that can be forces, [n, 3]."""
    results = atoms.calc.results if atoms.calc is not None else {}
    shape = (len(atoms), 3)
    found = {k: np.asarray(v) for k, v in {**atoms.arrays, **results}.items() if k != "positions"}
    return {k: v for k, v in found.items() if v.shape == shape and v.dtype.kind == "f"}


def _target(source, images: list[Atoms], target: str | None) -> str:
    there = sorted(scalar_labels(images[0]))
    if target is None:
        target = "energy"
    if not there:
        raise DataError(
            f"{source}: its first structure has no label, energy or other; in extxyz it stands in "
            "the second line as NAME=NUMBER (--target NAME)"
        )
    known_or_nearest(target, there, "label (--target)", str(source))
    for k, atoms in enumerate(images):
        if target not in scalar_labels(atoms):
            raise DataError(f"{source}: structure {k} has no {target}")
    return target


def _forces(source, images: list[Atoms], forces: str | None) -> str | None:
    if forces == "none":
        return None
    if forces is None:
        count = sum("forces" in vector_labels(atoms) for atoms in images)
        named = [name for name in vector_labels(images[0]) if "force" in name.lower()]
        if count == 0 and named:
            log.warning(
                "%s: without forces; the label %s may be some: --forces %s",
                source,
                named[0],
                named[0],
            )
        if 0 < count < len(images):
            log.warning(
                "%s: %s of %s structures have forces, so all forces are left out. Use those "
                "structures alone, or say --forces none",
                source,
                f"{count:,}",
                f"{len(images):,}",
            )
        return "forces" if count == len(images) else None
    there = {**images[0].info, **images[0].arrays}
    if forces in there and forces not in vector_labels(images[0]):
        shape = list(np.shape(there[forces]))
        raise DataError(f"{source}: {forces} has the shape {shape}; forces are [n, 3]")
    known_or_nearest(forces, sorted(vector_labels(images[0])), "label (--forces)", str(source))
    for k, atoms in enumerate(images):
        if forces not in vector_labels(atoms):
            raise DataError(f"{source}: structure {k} has no {forces}")
    return forces


def _unit(atoms: Atoms, target: str, unit: str | None) -> str:
    if unit is not None:
        known_or_nearest(unit, list(UNITS), "unit", "--unit")
        return unit
    if atoms.calc is not None and target == "energy" and target in atoms.calc.results:
        return ASE_UNIT
    raise ConfigError(f"--unit: the unit of {target} must be given, one of {', '.join(UNITS)}")


def _structures(
    source, images: list[Atoms], target: str, forces: str | None, *, periodic: bool
) -> Iterator[Structure]:
    for k, atoms in enumerate(images):
        properties: dict = {target: scalar_labels(atoms)[target]}
        if forces is not None:
            properties[forces] = vector_labels(atoms)[forces]
        cell = np.asarray(atoms.cell) if periodic else None
        yield Structure(f"{k}", atoms.numbers, atoms.positions, properties, cell)
