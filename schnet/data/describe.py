"""What is in a converted data set, in words and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from schnet.data.fetch import MADE_HERE
from schnet.data.store import Store, Structure
from schnet.errors import ConfigError, DataError, first_line
from schnet.files import atomic, check_picture, write_text
from schnet.units import factor

CHUNK = 50_000  # rows read at a time
SAMPLE = 200_000  # rows drawn at most
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
COLOURS = (BLUE, VERMILLION, GREEN)
RADIUS = 0.45  # of a drawn atom, in parts of its covalent radius
LONGEST_ARROW = 1.2  # Å


class Distribution(NamedTuple):
    """Of all values of a property, and a sample of them to draw."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    sample: np.ndarray


def distribution(dataset, component: int | None = None) -> Distribution:
    """The distribution of the values of a property.

    Read in pieces; mean and variance are merged as in Chan, Golub & LeVeque (1979).

    Args:
        dataset: of an open store, [M] or [N, 3].
        component: of vectors, 0 to 2; None: all components together.
    """
    n, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    sample = []
    step = -(-len(dataset) // SAMPLE)
    for at in range(0, len(dataset), CHUNK):
        rows = dataset[at : at + CHUNK]
        if component is not None:
            rows = rows[:, component]
        x = rows.ravel()
        delta = x.mean() - mean
        squares += ((x - x.mean()) ** 2).sum() + delta**2 * n * len(x) / (n + len(x))
        mean += delta * len(x) / (n + len(x))
        n += len(x)
        low, high = min(low, x.min()), max(high, x.max())
        sample.append(rows[-at % step :: step].ravel())
    return Distribution(low, high, mean, float(np.sqrt(squares / n)), np.concatenate(sample))


def made_how(store: Store) -> str:
    """How data were made that stand in for upstream's; empty for upstream's own."""
    made = (s["url"] for s in store.sources if s.get("checksum_from") == MADE_HERE)
    return "; ".join(dict.fromkeys(text.removeprefix(f"{MADE_HERE}: ") for text in made))


def full_title(store: Store, title: str | None = None, separator: str = " ") -> str:
    """The name of a data set; of data that stand in for it, first how they were made.

    Args:
        store: the data set.
        title: a name in place of its own.
        separator: between the two parts.
    """
    how, title = made_how(store), title or store.title
    return f"{how},{separator}in place of {title}" if how else title


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


def _print_properties(store: Store) -> dict[str, Distribution]:
    """Units and ranges of all properties; returns their distributions."""
    columns = ("minimum", "maximum", "mean")
    heads = " ".join(f"{head:>14}" for head in columns)
    print(f"{'property':28} {'unit':12} {heads} {'std':>12}")
    found = {}
    with store.open() as h5:
        for name, p in store.properties.items():
            d = found[name] = distribution(h5[f"properties/{name}"])
            flag = "  (approximation)" if p.approximate else ""
            values = " ".join(f"{value:14.6g}" for value in (d.minimum, d.maximum, d.mean))
            print(f"{name:28} {p.unit:12} {values} {d.deviation:12.4g}{flag}")
    return found


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
        f"{full_title(store)}: {len(store):,} structures, {counts.sum():,} atoms, "
        f"{counts.min()}–{counts.max()} atoms each (mean {counts.mean():.1f})"
    )
    _print_origin(store)
    _print_contents(store)
    distributions = _print_properties(store)
    if picture:
        _draw_distributions(store, distributions, picture)


def _pyplot():
    """matplotlib.pyplot without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_distribution(
    ax, found: dict[str, Distribution], name: str, unit: str, bins: int = 80
) -> list[np.ndarray]:
    """Histograms of one or several distributions over common bins, from their samples.

    Far from zero the values are drawn from their mean, for short numbers at the ticks.

    Args:
        ax: of matplotlib.
        found: by what the legend calls them; a single one has no legend.
        name, unit: of the property.
        bins: how many.

    Returns:
        The edges of the bins [bins + 1] in the unit, and for every distribution its counts [bins].
    """
    from matplotlib.ticker import MaxNLocator

    samples = {label: d.sample for label, d in found.items()}
    low, high = min(d.minimum for d in found.values()), max(d.maximum for d in found.values())
    middle = float(np.mean([d.mean for d in found.values()]))
    far = abs(middle) > 3 * (high - low) > 0
    origin = middle if far else 0.0
    edges = np.histogram_bin_edges([], bins, (low, high))
    counts = []
    for (label, sample), colour in zip(samples.items(), COLOURS, strict=False):
        counts.append(np.histogram(sample, edges)[0])
        if len(samples) == 1:
            ax.stairs(counts[-1], edges - origin, fill=True, color=colour)
        else:
            ax.stairs(counts[-1], edges - origin, color=colour, lw=1.2, label=label)
    if len(samples) > 1:
        ax.legend(fontsize=6, frameon=False)
    text = f"{name} − mean" if far else name
    ax.set_xlabel(f"{text} / {unit}", fontsize=7)
    ax.set_ylabel("values per bin", fontsize=7)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize=6)
    return [edges, *counts]


def _draw_distributions(store: Store, found: dict[str, Distribution], picture) -> None:
    """One histogram per property."""
    plt = _pyplot()
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    size = (max(4, 2.8 * columns), 2.1 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, (name, d) in zip(axes.flat, found.items(), strict=False):
        draw_distribution(ax, {name: d}, name, store.properties[name].unit)
    for ax in list(axes.flat)[len(found) :]:
        ax.set_visible(False)
    title = f"{full_title(store)} ({len(store):,} structures)"
    figure.suptitle(fill(title, int(14 * size[0])), fontsize=9)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def first_view(structure: Structure) -> np.ndarray:
    """Rotation [3, 3] whose rows are right, up and towards the viewer.

    A molecule is seen along its thinnest direction, a crystal along its third axis, both tilted.
    """
    axes = np.eye(3)
    if structure.cell is None:
        _, _, axes = np.linalg.svd(structure.positions - structure.positions.mean(0))
        axes[2] *= np.linalg.det(axes)  # no mirror image
    a, b = np.radians([-20.0, 15.0])
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return turn @ tilt @ axes


def draw_structure(ax, structure: Structure, fontsize: float = 7) -> None:
    """Draw a structure in parallel projection: atoms, bonds, cell edges and forces as arrows.

    Args:
        ax: of matplotlib, two-dimensional; its frame is removed.
        structure: forces are its property of that name, where it has one that is not zero.
        fontsize: of the element symbols, in points.
    """
    from matplotlib.patches import Circle

    z, view = structure.atomic_numbers, first_view(structure)
    right, up, depth = view @ structure.positions.T
    radii = RADIUS * covalent_radii[z]
    shown = [np.stack([right - radii, up - radii], 1), np.stack([right + radii, up + radii], 1)]
    layer = np.argsort(np.argsort(depth)) + 1.0
    for a, b in bonds(structure):
        behind = min(layer[a], layer[b]) - 0.5
        ax.plot(right[[a, b]], up[[a, b]], color=GREY, lw=2, zorder=behind)
    for k, number in enumerate(z):
        face = jmol_colors[number]
        place = right[k], up[k]
        ax.add_patch(Circle(place, radii[k], fc=face, ec="black", lw=0.6, zorder=layer[k]))
        middle = {"ha": "center", "va": "center", "zorder": layer[k]}
        ax.text(*place, chemical_symbols[number], fontsize=fontsize, **middle)
    if structure.cell is not None:
        shown += _draw_cell(ax, structure.cell, view)
    arrows = force_arrows(structure)
    if len(arrows):
        arrows = (arrows @ view.T)[:, :2]
        shown.append(np.stack([right, up], 1) + arrows)
        scale = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008}
        ax.quiver(right, up, *arrows.T, color=VERMILLION, zorder=len(z) + 2, **scale)
    points = np.concatenate(shown)
    low, high = points.min(0) - 0.2, points.max(0) + 0.2
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    ax.set_axis_off()


def force_arrows(structure: Structure) -> np.ndarray:
    """Forces as they are drawn, [n, 3] in Å, the longest LONGEST_ARROW; [0, 3] where none acts."""
    forces = structure.properties.get("forces")
    if forces is None or np.abs(forces).max() == 0:
        return np.zeros((0, 3))
    return forces * (LONGEST_ARROW / np.linalg.norm(forces, axis=1).max())


def bonds(structure: Structure) -> list[tuple[int, int]]:
    """Pairs of atoms closer than 1.25 times the sum of their covalent radii; no periodic images."""
    r, radii = structure.positions, covalent_radii[structure.atomic_numbers]
    distances = np.linalg.norm(r[:, None] - r, axis=2)
    close = np.triu(distances < 1.25 * (radii[:, None] + radii), 1)
    return [(int(a), int(b)) for a, b in np.argwhere(close)]


def cell_edges(cell: np.ndarray) -> np.ndarray:
    """Where the twelve edges of a cell [3, 3] begin and end, [12, 2, 3]."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 and (b >= a).all()]
    return np.array(edges) @ cell


def _draw_cell(ax, cell: np.ndarray, view: np.ndarray) -> list[np.ndarray]:
    """The edges of a cell [3, 3] behind the atoms; returns where they end, [2, 2] each."""
    ends = list((cell_edges(cell) @ view.T)[..., :2])
    for end in ends:
        ax.plot(*end.T, color=BLUE, lw=0.8, zorder=0)
    return ends


def show(path, index: int, picture) -> None:
    """Draw one structure: atoms, bonds, cell edges and forces as arrows.

    Args:
        path: HDF5 file.
        index: of the structure, from 0.
        picture: image file, or a page (.html) in which the structure can be turned.

    Raises:
        ConfigError: the picture's name says no format.
        DataError: the file is no converted data set, or there is no such structure.
    """
    if Path(picture).suffix != ".html":
        check_picture(picture)
    store = Store(path)
    structure = store.structure(index)
    if Path(picture).suffix == ".html":
        from schnet.viewer import structures_page

        caption = _caption(store, structure)
        write_text(picture, structures_page(store.name, {caption: structure}))
        return
    plt = _pyplot()
    figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
    draw_structure(ax, structure)
    ax.set_title(_caption(store, structure), fontsize=8)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


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
    lines = (full_title(store), f"structure {structure.id}: {text}")
    return "\n".join(fill(line, 80) for line in lines)
