"""How all figures look; matplotlib is imported only when something is drawn."""

from __future__ import annotations

import math
from pathlib import Path

from schnet.files import atomic, write_text

#: Okabe and Ito's palette: told apart by colour-blind readers; line styles and markers serve print
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LINES = ["-", "--", "-.", ":"]
REFERENCE = {"color": "#000000", "marker": "X", "linestyle": (0, (5, 1, 1, 1, 1, 1))}
GREY = "#555555"


def settings() -> dict:
    """Matplotlib's rcParams for all figures."""
    from cycler import cycler

    return {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "legend.frameon": False,
        "figure.dpi": 150,
        "savefig.bbox": "tight",
        "svg.hashsalt": "schnet",
    }


def line(k: int) -> dict:
    """Colour, marker and line style of the k-th curve."""
    n = len(COLOURS)
    return {
        "color": COLOURS[k % n],
        "marker": MARKERS[k % n],
        "linestyle": LINES[(k + k // n) % len(LINES)],
    }


def panels(count: int, *, columns: int, width: float, height: float):
    """A figure with a grid of panels.

    Args:
        count: number of panels; with none there is an empty one that says so.
        columns: at most.
        width, height: of one panel in inches.

    Returns:
        The figure and a list of its axes.
    """
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    figure, table = grid(rows, columns, (width * columns, height * rows))
    axes = list(table.flat)
    for ax in axes[max(1, count) :]:
        ax.remove()
    if count == 0:
        empty(axes[0], "no run is there yet")
    return figure, axes[: max(1, count)]


def grid(rows: int, columns: int, size: tuple[float, float], *, dpi: float | None = None, **ratios):
    """A figure with a table of panels, all of them used.

    Args:
        rows, columns: of the table.
        size: width and height in inches.
        dpi: of the picture, and of what is pixels in the PDF; None: as all figures.
        ratios: width_ratios, height_ratios.

    Returns:
        The figure and its axes, [rows, columns].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios)


def empty(ax, text: str):
    """Say in a panel why nothing is drawn there."""
    ax.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def unit_text(unit: str) -> str:
    """A unit as it is printed: Bohr³ for Bohr^3."""
    return unit.replace("^2", "²").replace("^3", "³")


def log_axis(axis):
    """A logarithmic axis, after the drawing, with plain numbers: dense where it is short."""
    from matplotlib import ticker

    low, high = axis.get_view_interval()
    if high > 1e3 * low:
        axis.set_major_locator(ticker.LogLocator(numticks=5))
        axis.set_minor_formatter(ticker.NullFormatter())
        return
    steps = (1.0, 2.0, 5.0) if high > 6 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    axis.set_major_locator(ticker.LogLocator(subs=steps))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def save(figure, csv_text: str, path: str | Path, footer: str):
    """Write the picture, a PDF and the CSV beside it.

    Args:
        figure: of matplotlib.
        csv_text: the data.
        path: the picture; its suffix says the format.
        footer: small print below the picture.
    """
    import matplotlib
    from matplotlib.transforms import ScaledTranslation

    path = Path(path)
    figure.get_layout_engine().execute(figure)  # once, not for every file
    figure.set_layout_engine("none")
    below = figure.transFigure + ScaledTranslation(0, -0.1, figure.dpi_scale_trans)
    figure.text(0, 0, footer, fontsize=7, color=GREY, ha="left", va="top", transform=below)
    margin = matplotlib.rcParams["savefig.pad_inches"]
    box = figure.get_tightbbox().padded(margin)  # "tight" would draw once more for every file
    with atomic(path) as temporary:
        figure.savefig(temporary, bbox_inches=box)
    with atomic(path.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, bbox_inches=box, metadata={"CreationDate": None})
    write_text(path.with_suffix(".csv"), csv_text)
