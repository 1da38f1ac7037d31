"""Principal components of what the atom embeddings learned, and whether groups lie together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from schnet.errors import DataError
from schnet.figures import style
from schnet.figures.results import options, runs_of, trained_model
from schnet.run import Run

READS = ("model_file", "data", "split")
OPTIONS = {"permutations": 10_000, "seed": 0}

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
GROUP_OF = {z: group for group, members in GROUPS.items() for z in members}


def uses(run: Run) -> bool:
    """Embeddings are learned by neural networks."""
    return run.settings.method == "neural"


def principal_components(x: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal components of the rows of a matrix.

    Args:
        x: [m, F].
        n: how many.

    Returns:
        Scores [m, n], and the share of the variance that each component explains [n].
    """
    centred = x - x.mean(0)
    _u, s, vt = np.linalg.svd(centred, full_matrices=False)
    # a sign that does not depend on LAPACK: the largest entry of each component is positive
    vt = vt * np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(1)])[:, None]
    return centred @ vt[:n].T, (s**2 / (s**2).sum())[:n]


def nearest_neighbours(x: np.ndarray) -> np.ndarray:
    """The index of every row's nearest other row (Euclidean distance) in x [m, F]."""
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(1)


def grouping_test(nearest: np.ndarray, groups: np.ndarray, permutations: int, seed: int):
    """Whether nearest neighbours share a group more often than chance lets them.

    Args:
        nearest: index of every element's nearest neighbour [m].
        groups: name of every element's group [m].
        permutations: of the groups among the elements.
        seed: of the permutations.

    Returns:
        The share of elements whose nearest neighbour is of their group, its mean over the
        permutations, and p: the share of permutations, the real order counted as one, that reach
        the same value.
    """
    share = float((groups == groups[nearest]).mean())
    random = np.random.default_rng(seed)
    permuted = np.empty(permutations)
    for k in range(permutations):
        other = random.permutation(groups)
        permuted[k] = (other == other[nearest]).mean()
    reached = int((permuted >= share).sum())
    return share, float(permuted.mean()), (1 + reached) / (1 + permutations)


def _table(run: Run, chosen: dict) -> pd.DataFrame:
    """One row per element, with the test of the grouping in every row."""
    model = trained_model(run)
    if not hasattr(model, "embedding"):
        raise DataError(f"{run.model_file}: {run.settings.architecture} embeds no elements")
    trained = model.elements.nonzero().flatten().tolist()
    elements = [z for z in trained if z in GROUP_OF]
    if len(elements) < 4:
        elements = trained
    if len(elements) < 3:
        raise DataError(f"{run.model_file}: {len(elements)} elements only, no components to draw")
    weights = model.state_dict()["embedding.weight"]
    vectors = weights[elements].double().cpu().numpy()
    scores, explained = principal_components(vectors)
    nearest = nearest_neighbours(vectors)
    groups = np.array([GROUP_OF.get(z, "other") for z in elements])
    symbols = np.array([chemical_symbols[z] for z in elements])
    data = pd.DataFrame(
        {
            "element": symbols,
            "atomic_number": elements,
            "group": groups,
            "pc1": scores[:, 0],
            "pc2": scores[:, 1],
            "nearest": symbols[nearest],
        }
    )
    data["explained_pc1"], data["explained_pc2"] = explained
    if set(elements) <= set(GROUP_OF):
        share, chance, p = grouping_test(nearest, groups, chosen["permutations"], chosen["seed"])
        data["same_group_share"], data["same_group_by_chance"] = share, chance
        data["p"], data["permutations"] = p, chosen["permutations"]
    data["run"] = run.path
    return data


def _statement(data: pd.DataFrame) -> str:
    """The result of the test in words."""
    explained = data["explained_pc1"].iloc[0] + data["explained_pc2"].iloc[0]
    text = f"both components: {100 * explained:.0f} % of the variance"
    if "p" not in data:
        return f"{text}; too few sp elements for a test of groups"
    first, count = data.iloc[0], len(data)
    same = f"{first['same_group_share'] * count:.0f} of {count}"
    chance = f"{first['same_group_by_chance'] * count:.1f} by chance"
    return (
        f"{text}\nnearest neighbour in all dimensions of the same group: {same}\n"
        f"({chance}, p = {first['p']:.2g} from {first['permutations']:,} permutations)"
    )


def _marker_outlines(ax, points: np.ndarray, radius: float = 4.0):
    """x and y of points around every marker, which labels keep clear of; radius in points."""
    pixels = radius * ax.figure.dpi / 72
    around = pixels * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    outline = ax.transData.transform(points)[:, None] + around
    return ax.transData.inverted().transform(outline.reshape(-1, 2)).T


def draw(project, figure: dict):
    """Embeddings of sp atoms on two principal components, coloured by group.

    Drawn from the first finished run with the largest training set. Where the training data hold
    fewer than four sp elements, all elements are shown and nothing is tested.
    """
    from adjustText import adjust_text

    runs = [run for run in runs_of(project, figure) if uses(run) and run.model_file.exists()]
    if not runs:
        picture, _ = style.panels(0, columns=1, width=5.6, height=4.2)
        return picture, "element\n"
    run = max(runs, key=lambda run: run.n_train)
    data = _table(run, options(figure, OPTIONS))
    picture, (ax,) = style.panels(1, columns=1, width=5.6, height=4.4)
    for k, (group, part) in enumerate(data.groupby("group", sort=True)):
        look = {"color": style.COLOURS[k % 8], "marker": style.MARKERS[k % 8]}
        ax.scatter(part["pc1"], part["pc2"], s=28, label=group, **look)
    ax.set_xlabel(f"first component ({100 * data['explained_pc1'].iloc[0]:.0f} % of the variance)")
    ax.set_ylabel(f"second component ({100 * data['explained_pc2'].iloc[0]:.0f} %)")
    ax.set_title(_statement(data), fontsize=7, loc="left")
    ax.margins(0.08)
    legend = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "title_fontsize": 7}
    ax.legend(fontsize=7, title="group", **legend)
    picture.canvas.draw()  # labels are placed for the final size of the axes
    picture.set_layout_engine("none")
    symbols = zip(data["pc1"], data["pc2"], data["element"], strict=True)
    texts = [ax.text(x, y, symbol, fontsize=7) for x, y, symbol in symbols]
    lines = {"arrowstyle": "-", "color": style.GREY, "lw": 0.4}
    x, y = _marker_outlines(ax, data[["pc1", "pc2"]].to_numpy())
    room = {"expand": (1.3, 1.4), "min_arrow_len": 12}
    # a limit in iterations, not in seconds: the same picture on a busy machine
    adjust_text(texts, x=x, y=y, ax=ax, iter_lim=500, **room, arrowprops=lines)
    return picture, data.to_csv(index=False)
