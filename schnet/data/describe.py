"""What is in a converted data set, in words and histograms."""

from __future__ import annotations

from textwrap import fill
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from schnet.data.raw_files import MADE_HERE
from schnet.data.store import Store
from schnet.files import atomic

CHUNK = 50_000  # rows read at a time
SAMPLE = 200_000  # rows drawn at most
BLUE, VERMILLION, GREEN = COLOURS = ("#0072B2", "#D55E00", "#009E73")


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


def pyplot():
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
    plt = pyplot()
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
