"""What is in a converted data set, in words and pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from schnet.data.store import Store, Structure
from schnet.errors import DataError, first_line
from schnet.files import atomic
from schnet.units import factor

CHUNK = 50_000  # values read at a time
SAMPLE = 200_000  # values drawn at most
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#888888"


class Distribution(NamedTuple):
    """Of all values of a property, and a sample of them to draw."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    sample: np.ndarray


def _distribution(dataset) -> Distribution:
    """Read in pieces; mean and variance are merged as in Chan, Golub & LeVeque (1979)."""
    n, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    sample = []
    step = max(1, len(dataset) // SAMPLE)
    for at in range(0, len(dataset), CHUNK):
        x = dataset[at : at + CHUNK].ravel()
        delta = x.mean() - mean
        squares += ((x - x.mean()) ** 2).sum() + delta**2 * n * len(x) / (n + len(x))
        mean += delta * len(x) / (n + len(x))
        n += len(x)
        low, high = min(low, x.min()), max(high, x.max())
        sample.append(x[::step])
    return Distribution(low, high, mean, float(np.sqrt(squares / n)), np.concatenate(sample))


def _print_origin(store: Store) -> None:
    """Citation, licence, where the files came from and what was noted on the way."""
    print(f"citation: {store.citation}")
    print(f"licence: {store.licence}")
    print(f"digest: {store.digest}")
    for source in store.sources:
        print(
            f"from {source.get('file', '')}: {source.get('url', '')} "
            f"(sha256 {source.get('sha256', '')[:16]}…, "
            f"checksum from: {source.get('checksum_from', '')})"
        )
    said = dict.fromkeys(note for source in store.sources for note in source.get("notes", []))
    for note in said:
        print(f"note: {note}")
    for key, value in store.notes.items():
        print(f"{key}: {value}")


def _print_contents(store: Store) -> None:
    """Groups, elements and neighbours."""
    if len(store.group_names) > 1:
        sizes = [int((store.groups == k).sum()) for k in range(len(store.group_names))]
        named = zip(store.group_names, sizes, strict=True)
        print("groups: " + ", ".join(f"{name} {size:,}" for name, size in named))
    with store.open() as h5:
        elements, amounts = np.unique(h5["atomic_numbers"][:], return_counts=True)
    counted = zip(elements, amounts, strict=True)
    print("atoms: " + ", ".join(f"{chemical_symbols[z]} {n:,}" for z, n in counted))
    if store.cutoff:
        print(f"every atom has a neighbour within {store.cutoff} Å")


def _print_properties(store: Store) -> dict[str, np.ndarray]:
    """Units and ranges of all properties; returns samples to draw."""
    columns = ("minimum", "maximum", "mean")
    heads = " ".join(f"{head:>14}" for head in columns)
    print(f"{'property':28} {'unit':12} {heads} {'std':>12}")
    samples = {}
    with store.open() as h5:
        for name, p in store.properties.items():
            d = _distribution(h5[f"properties/{name}"])
            flag = "  (approximation)" if p.approximate else ""
            values = " ".join(f"{value:14.6g}" for value in (d.minimum, d.maximum, d.mean))
            print(f"{name:28} {p.unit:12} {values} {d.deviation:12.4g}{flag}")
            samples[name] = d.sample
    return samples


def describe(path, picture=None) -> None:
    """Print what a converted data set holds: origin, counts, elements, units and ranges.

    Args:
        path: HDF5 file.
        picture: where to draw the distributions of all properties, if anywhere.

    Raises:
        DataError: the file is no converted data set.
    """
    store = Store(path)
    counts = np.diff(store.offsets)
    print(
        f"{store.title}: {len(store):,} structures, {counts.sum():,} atoms, "
        f"{counts.min()}–{counts.max()} atoms each (mean {counts.mean():.1f})"
    )
    _print_origin(store)
    _print_contents(store)
    samples = _print_properties(store)
    if picture:
        _draw_distributions(store, samples, picture)


def _pyplot():
    """matplotlib.pyplot without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _draw_distributions(store: Store, samples: dict[str, np.ndarray], picture) -> None:
    """One histogram per property."""
    plt = _pyplot()
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    size = (2.8 * columns, 2.1 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, (name, x) in zip(axes.flat, samples.items(), strict=False):
        ax.hist(x, bins=80, color=BLUE)
        ax.set_xlabel(f"{name} / {store.properties[name].unit}", fontsize=8)
        ax.tick_params(labelsize=6)
    for ax in list(axes.flat)[len(samples) :]:
        ax.set_visible(False)
    figure.suptitle(f"{store.title}: {len(store):,} structures", fontsize=9)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def _draw_atoms(ax, structure: Structure) -> None:
    """Atoms in element colours with their symbols, bonds between those that are close."""
    r, z = structure.positions, structure.atomic_numbers
    distances = np.linalg.norm(r[:, None] - r, axis=2)
    reach = 1.25 * (covalent_radii[z][:, None] + covalent_radii[z])
    for a, b in zip(*np.where(np.triu(distances < reach, 1)), strict=True):
        ax.plot(*np.stack([r[a], r[b]]).T, color=GREY, lw=2, zorder=1)
    ax.scatter(
        *r.T,
        s=400 * covalent_radii[z],
        c=jmol_colors[z],
        edgecolors="black",
        depthshade=False,
        zorder=2,
    )
    for position, number in zip(r, z, strict=True):
        ax.text(*position, chemical_symbols[number], fontsize=7, ha="center", va="center", zorder=3)


def _draw_cell(ax, cell: np.ndarray) -> None:
    """The twelve edges of a cell [3, 3]."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    for a in corners:
        for b in corners:
            if (b - a).sum() == 1 and ((b - a) >= 0).all():
                ax.plot(*np.stack([a @ cell, b @ cell]).T, color=BLUE, lw=0.8)


def show(path, index: int, picture) -> None:
    """Draw one structure in 3-D: atoms, bonds, cell edges and forces as arrows.

    Args:
        path: HDF5 file.
        index: of the structure, from 0.
        picture: image file.

    Raises:
        DataError: the file is no converted data set, or there is no such structure.
    """
    store = Store(path)
    structure = store.structure(index)
    plt = _pyplot()
    figure = plt.figure(figsize=(5, 5))
    ax = figure.add_subplot(projection="3d")
    _draw_atoms(ax, structure)
    r, forces = structure.positions, structure.properties.get("forces")
    if forces is not None and np.abs(forces).max() > 0:
        length = 1.2 / np.linalg.norm(forces, axis=1).max()
        ax.quiver(*r.T, *(forces * length).T, color=VERMILLION, lw=1.5)
    if structure.cell is not None:
        _draw_cell(ax, structure.cell)
    low, high = r.min(0), r.max(0)
    half = max((high - low).max(), 2) / 2 * 1.1
    middles = (low + high) / 2
    for setter, middle in zip((ax.set_xlim, ax.set_ylim, ax.set_zlim), middles, strict=True):
        setter(middle - half, middle + half)
    ax.set_box_aspect((1, 1, 1), zoom=1.6)
    ax.set_axis_off()
    ax.set_title(_caption(store, structure), fontsize=8)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def export(path, index: int, output) -> None:
    """Write elements, positions and cell of one structure, energy and forces where it has them.

    Args:
        path: HDF5 file.
        index: of the structure, from 0.
        output: file of any format that ASE writes; its name says which.

    Raises:
        DataError: there is no such structure, or the format is none that ASE writes and reads, or
            none for such a structure.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read

    store = Store(path)
    structure = store.structure(index)
    cell = structure.cell
    atoms = Atoms(structure.atomic_numbers, structure.positions, cell=cell, pbc=cell is not None)
    atoms.calc = SinglePointCalculator(atoms, **_labels(store, structure))
    with atomic(output) as temporary:
        try:
            atoms.write(temporary)
            read(temporary)
        except Exception as error:  # ASE's writers and readers raise anything
            raise DataError(
                f"{output}: no format for this structure ({first_line(error)}); try .extxyz"
            ) from error


def _labels(store: Store, structure: Structure) -> dict:
    """Total energy in eV and forces in eV/Å, as far as the data set has them."""
    wanted = (("energy", "eV", ("energy", "U0")), ("forces", "eV/Å", ("forces",)))
    found = {}
    for name, unit, keys in wanted:
        key = next((k for k in keys if k in structure.properties), None)
        if key is not None:
            found[name] = structure.properties[key] * factor(store.properties[key].unit, unit)
    return found


def _caption(store: Store, structure: Structure) -> str:
    """Name of a structure, its first three scalar properties and the length of the arrows."""
    parts = [
        f"{key} = {value:.6g} {store.properties[key].unit}"
        for key, value in structure.properties.items()
        if np.ndim(value) == 0
    ][:3]
    text = ", ".join(parts)
    if "forces" in structure.properties:
        longest = np.linalg.norm(structure.properties["forces"], axis=1).max()
        unit = store.properties["forces"].unit
        text += f"; arrows: forces, longest {longest:.3g} {unit}"
    return f"{store.title}, structure {structure.id}\n{text}"
