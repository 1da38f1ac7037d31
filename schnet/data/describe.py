"""What is in a converted data set, in words and pictures."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from schnet.data.store import Store
from schnet.files import atomic

CHUNK = 50_000


def _distribution(dataset):
    """(minimum, maximum, mean, standard deviation, sample) of a dataset, read in pieces."""
    n, mean, m2, lo, hi, sample = 0, 0.0, 0.0, np.inf, -np.inf, []
    step = max(1, len(dataset) // 200_000)
    for at in range(0, len(dataset), CHUNK):
        x = dataset[at : at + CHUNK].ravel()
        delta = x.mean() - mean
        m2 += ((x - x.mean()) ** 2).sum() + delta**2 * n * len(x) / (n + len(x))
        mean += delta * len(x) / (n + len(x))
        n += len(x)
        lo, hi = min(lo, x.min()), max(hi, x.max())
        sample.append(x[::step])
    return lo, hi, mean, np.sqrt(m2 / n), np.concatenate(sample)


def describe(path, picture=None):
    """Print counts, elements, sizes, units and ranges; with ``picture``, draw the distributions of all properties."""
    store = Store(path)
    counts = np.diff(store.offsets)
    print(f"{store.title}: {len(store):,} structures, {counts.sum():,} atoms, {counts.min()}–{counts.max()} atoms each (mean {counts.mean():.1f})")
    print(f"citation: {store.citation}\nlicence: {store.licence}\ndigest: {store.digest}")
    for source in store.sources:
        print(
            f"from {source.get('file', '')}: {source.get('url', '')} (sha256 {source.get('sha256', '')[:16]}…, checksum from: {source.get('checksum_from', '')})"
        )
    for key, value in store.notes.items():
        print(f"{key}: {value}")
    if len(store.group_names) > 1:
        print("groups: " + ", ".join(f"{name} {int((store.groups == k).sum()):,}" for k, name in enumerate(store.group_names)))
    samples = {}
    with store.open() as h5:
        elements, amounts = np.unique(h5["atomic_numbers"][:], return_counts=True)
        print("elements: " + ", ".join(f"{chemical_symbols[z]} {n:,}" for z, n in zip(elements, amounts, strict=True)))
        if store.cutoff:
            pairs = np.diff(h5["neighbours/offsets"][:])
            print(
                f"neighbours within {store.cutoff} Å: {2 * pairs.sum() / counts.sum():.1f} per atom on average, {pairs.max():,} pairs in the largest structure"
            )
        print(f"{'property':28} {'unit':12} {'minimum':>14} {'maximum':>14} {'mean':>14} {'std':>12}")
        for name, p in store.properties.items():
            lo, hi, mean, std, samples[name] = _distribution(h5[f"properties/{name}"])
            flag = "  (approximation)" if p.approximate else ""
            print(f"{name:28} {p.unit:12} {lo:14.6g} {hi:14.6g} {mean:14.6g} {std:12.4g}{flag}")
    if picture:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        columns = min(4, len(samples))
        rows = -(-len(samples) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(2.8 * columns, 2.1 * rows), squeeze=False, layout="constrained")
        for ax, (name, x) in zip(axes.flat, samples.items(), strict=False):
            ax.hist(x, bins=80, color="#0072B2")
            ax.set_xlabel(f"{name} / {store.properties[name].unit}", fontsize=8)
            ax.tick_params(labelsize=6)
        for ax in list(axes.flat)[len(samples) :]:
            ax.set_visible(False)
        figure.suptitle(f"{store.title}: {len(store):,} structures", fontsize=9)
        with atomic(picture) as temporary:
            figure.savefig(temporary, dpi=150)
        plt.close(figure)


def show(path, index: int, picture):
    """Draw one structure in 3-D: atoms in element colours, bonds, cell edges and forces as arrows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    store = Store(path)
    s = store.structure(index)
    r, z = s.positions, s.atomic_numbers
    figure = plt.figure(figsize=(5, 5))
    ax = figure.add_subplot(projection="3d")
    d = np.linalg.norm(r[:, None] - r, axis=2)
    reach = 1.25 * (covalent_radii[z][:, None] + covalent_radii[z])
    for a, b in zip(*np.where(np.triu(d < reach, 1)), strict=True):
        ax.plot(*np.stack([r[a], r[b]]).T, color="#888888", lw=2, zorder=1)
    ax.scatter(*r.T, s=400 * covalent_radii[z], c=jmol_colors[z], edgecolors="black", depthshade=False, zorder=2)
    for position, number in zip(r, z, strict=True):
        ax.text(*position, chemical_symbols[number], fontsize=7, ha="center", va="center", zorder=3)
    forces = s.properties.get("forces")
    if forces is not None and np.abs(forces).max() > 0:
        length = 1.2 / np.linalg.norm(forces, axis=1).max()
        ax.quiver(*r.T, *(forces * length).T, color="#D55E00", lw=1.5)
    if s.cell is not None:
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        for a in corners:
            for b in corners:
                if (b - a).sum() == 1 and ((b - a) >= 0).all():
                    ax.plot(*np.stack([a @ s.cell, b @ s.cell]).T, color="#0072B2", lw=0.8)
    low, high = r.min(0), r.max(0)
    half = max((high - low).max(), 2) / 2 * 1.1
    for setter, middle in zip((ax.set_xlim, ax.set_ylim, ax.set_zlim), (low + high) / 2, strict=True):
        setter(middle - half, middle + half)
    ax.set_box_aspect((1, 1, 1), zoom=1.6)
    ax.set_axis_off()
    scalars = [f"{k} = {float(v):.6g} {store.properties[k].unit}" for k, v in s.properties.items() if np.ndim(v) == 0][:3]
    force = f"; arrows: forces, longest {np.linalg.norm(forces, axis=1).max():.3g} {store.properties['forces'].unit}" if forces is not None else ""
    ax.set_title(f"{store.title}, structure {s.id}\n{', '.join(scalars)}{force}", fontsize=8)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
