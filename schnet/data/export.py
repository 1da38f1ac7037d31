"""Structures of a converted data set as a file of any format that ASE writes."""

from __future__ import annotations

from collections.abc import Iterable

from ase import Atoms

from schnet.data.store import Store, Structure
from schnet.errors import ConfigError, DataError, first_line
from schnet.files import atomic
from schnet.units import factor


def export(path, which: str, output) -> None:
    """Write elements, positions and cells of structures, energies and forces where they have them.

    Args:
        path: HDF5 file.
        which: an index from 0, or a range as ASE has it: ``0:100``, ``::10``, ``:`` for all.
        output: file of any format that ASE writes; its name says which.

    Raises:
        ConfigError: ``which`` is neither.
        DataError: there is no such structure, or the format is none that ASE writes and reads, or
            none for such structures.
    """
    from ase.io import read, write

    store = Store(path)
    images = [_labelled(store, structure) for structure in store.structures(_chosen(store, which))]
    if not images:
        raise DataError(f"{path}: no structure in {which}; it has {len(store)}")
    with atomic(output) as temporary:
        try:
            write(temporary, images)
            read(temporary, index=len(images) - 1)
        except Exception as error:  # ASE's writers and readers raise anything
            raise DataError(
                f"{output}: no format for this structure ({first_line(error)}); try .extxyz"
            ) from error


def _chosen(store: Store, which: str) -> Iterable[int]:
    """The indices that an index or a range of ASE's names."""
    from ase.io.formats import string2index

    try:
        chosen = string2index(which)
    except (ValueError, TypeError):  # text between the colons, or too many of them
        chosen = which
    if isinstance(chosen, str):
        raise ConfigError(f"{which!r}: neither the number of a structure nor a range like 0:100")
    return [chosen] if isinstance(chosen, int) else range(len(store))[chosen]


def _labelled(store: Store, structure: Structure) -> Atoms:
    """The structure with its energy and forces as results."""
    from ase.calculators.singlepoint import SinglePointCalculator

    cell = structure.cell
    atoms = Atoms(structure.atomic_numbers, structure.positions, cell=cell, pbc=cell is not None)
    atoms.calc = SinglePointCalculator(atoms, **_labels(store, structure))
    return atoms


def _labels(store: Store, structure: Structure) -> dict:
    """Total energy in eV and forces in eV/Å, as far as the data set has them."""
    wanted = (("energy", "eV", ("energy", "U0")), ("forces", "eV/Å", ("forces",)))
    found = {}
    for name, unit, keys in wanted:
        key = next((k for k in keys if k in structure.properties), None)
        if key is not None:
            found[name] = structure.properties[key] * factor(store.properties[key].unit, unit)
    return found
