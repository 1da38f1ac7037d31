"""Figures from results: a picture, a PDF and the data as CSV. A new figure is a new function in FIGURES."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import ticker

from schnet.errors import ConfigError
from schnet.figures import embeddings, errors, learning
from schnet.files import atomic, write_text
from schnet.project import Project

FIGURES = {
    "figure_3": learning.learning_curves,
    "figure_4": embeddings.embedding_pca,
    "figure_9": errors.qm9_histograms,
    "figure_10": errors.crystal_histogram,
    "training_curves": learning.training_curves,
    "predicted_true": errors.predicted_true,
}
#: Okabe and Ito's palette: told apart by colour-blind readers; line styles and markers serve print
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "svg.hashsalt": "schnet",
}


def log_axis(axis):
    """A logarithmic axis, after the drawing, with plain numbers: at 1, 2 and 5, or more where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if high > 6 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def save(figure, csv_text: str, path):
    """Write the picture, a PDF and the CSV beside it."""
    path = Path(path)
    for suffix, metadata in ((path.suffix, {}), (".pdf", {"CreationDate": None})):
        with atomic(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, metadata=metadata if suffix == ".pdf" else None)
    plt.close(figure)
    write_text(path.with_suffix(".csv"), csv_text)


def render(project: Project, name: str, output):
    """Draw one figure of the project."""
    if name not in FIGURES:
        raise ConfigError(f"no figure {name!r}; known: {', '.join(FIGURES)}")
    with plt.rc_context(STYLE):
        figure, csv_text = FIGURES[name](project)
        figure.text(0.0, -0.02, f"{project.config['scale']} scale", fontsize=7, color="#555555", ha="left", va="top")
        save(figure, csv_text, output)


def caption(project: Project, name: str) -> str:
    """What the figure shows, and at which scale."""
    return (FIGURES[name].__doc__ or "").split("\n\n")[0].replace("\n    ", " ").strip() + f" ({project.config['scale']} scale)"
