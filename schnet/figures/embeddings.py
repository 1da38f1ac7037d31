"""What the atom embeddings learned."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from schnet.data.store import Store
from schnet.errors import DataError

#: sp atoms by group of the periodic table (Fig. 4)
GROUPS = {
    "IA": (1, 3, 11, 19, 37, 55),
    "IIA": (4, 12, 20, 38, 56),
    "IIIA": (5, 13, 31, 49, 81),
    "IVA": (6, 14, 32, 50, 82),
    "VA": (7, 15, 33, 51, 83),
    "VIA": (8, 16, 34, 52, 84),
    "VIIA": (9, 17, 35, 53, 85),
    "VIIIA": (2, 10, 18, 36, 54, 86),
}


def principal_components(x: np.ndarray, n: int = 2):
    """Scores [m, n] on the leading principal components of the rows of x, and the variance they explain [n]."""
    centred = x - x.mean(0)
    _u, s, vt = np.linalg.svd(centred, full_matrices=False)
    vt = vt * np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(1)])[:, None]  # a sign that does not depend on LAPACK
    return centred @ vt[:n].T, (s**2 / (s**2).sum())[:n]


def embedding_pca(project):
    """Fig. 4: the two leading principal components of the embeddings of sp atoms, coloured by group of the
    periodic table, learned from Materials Project crystals. Where the data hold fewer than four sp elements,
    all elements are shown."""
    from schnet.figures import COLOURS, MARKERS
    from schnet.models import load_model

    runs = [r for r in project.runs_of("table_2") if (project.results / "runs" / r / "model.pt").exists()]
    if not runs:
        figure, ax = plt.subplots(figsize=(4.6, 3.4))
        ax.text(0.5, 0.5, "no run of Table II is there", ha="center")
        return figure, "element\n"
    run = max(runs, key=lambda r: int(r.split("/")[3].split("-")[0].removeprefix("n")))
    model = load_model(project.results / "runs" / run / "model.pt")
    store = Store(project.runs[run]["data"])
    with store.open() as h5:
        present = set(np.unique(h5["atomic_numbers"][:]).tolist())
    group_of = {z: g for g, members in GROUPS.items() for z in members}
    elements = [z for z in sorted(group_of) if z in present]
    if len(elements) < 4:
        elements = sorted(present)
    if len(elements) < 3:
        raise DataError(f"{store.path}: {len(elements)} elements only, no principal components to draw")
    scores, explained = principal_components(model.embedding.weight[elements].double().numpy())
    data = pd.DataFrame(
        {
            "element": [chemical_symbols[z] for z in elements],
            "atomic_number": elements,
            "group": [group_of.get(z, "other") for z in elements],
            "pc1": scores[:, 0],
            "pc2": scores[:, 1],
        }
    )
    data["run"] = run
    figure, ax = plt.subplots(figsize=(5.2, 4.0))
    for k, (group, part) in enumerate(data.groupby("group", sort=True)):
        ax.scatter(part["pc1"], part["pc2"], color=COLOURS[k % 8], marker=MARKERS[k % 8], s=28, label=group)
        for _, row in part.iterrows():
            ax.annotate(row["element"], (row["pc1"], row["pc2"]), xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.set(xlabel=f"first component ({100 * explained[0]:.0f} % of the variance)", ylabel=f"second component ({100 * explained[1]:.0f} %)")
    ax.legend(fontsize=7, title="group", title_fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, data.to_csv(index=False)
