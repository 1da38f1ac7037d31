"""Frequencies of normal modes of several models, and their differences from the first (Fig. 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from schnet.figures import style

if TYPE_CHECKING:
    from schnet.project import Project

DRAWS = "modes"
OPTIONS: dict = {}


def note(project: Project, figure: dict) -> str:
    """What the modes are compared with."""
    jobs = project.simulations[figure["simulation"]]
    if not jobs:
        return "No model of it exists at this scale."
    reference, *others = (source.label for source in jobs[0].models)
    return f"Reference: {reference}. Compared: {', '.join(others) or 'nothing'}."


def table(project: Project, figure: dict) -> pd.DataFrame:
    """One row for each mode of the reference and each model that is compared with it."""
    rows = []
    for job in project.simulations[figure["simulation"]]:
        if not job.result.exists():
            continue
        reference, *others = job.models
        own = pd.read_csv(job.folder / "modes.csv")
        first = pd.DataFrame(
            {
                "mode": own["mode"],
                "reference_cm-1": own["frequency_cm-1"],
                "other_cm-1": own["frequency_cm-1"],
                "degeneracy": own["degeneracy"],
            }
        )
        rows.append(first.assign(model=reference.label, difference_percent=0.0, overlap=1.0))
        for k, other in enumerate(others, 1):
            compared = pd.read_csv(job.folder / f"comparison_{k}.csv")
            rows.append(compared.assign(model=other.label, degeneracy=own["degeneracy"]))
    columns = ["model", "mode", "reference_cm-1", "other_cm-1", "difference_percent", "overlap"]
    if not rows:
        return pd.DataFrame(columns=[*columns, "degeneracy"])
    return pd.concat(rows)[[*columns, "degeneracy"]]


def draw(project: Project, figure: dict):
    """Frequencies above, differences in per cent of the reference's below.

    A mode of another model stands where the mode of the reference with the largest overlap of
    eigenvectors stands. Imaginary frequencies are drawn as negative numbers.
    """
    data = table(project, figure)
    if data.empty:
        picture, _ = style.panels(0, columns=1, width=5.6, height=4.2)
        return picture, data.to_csv(index=False)
    picture, axes = style.grid(2, 1, (5.6, 4.8), height_ratios=[3, 2])
    above, below = axes[:, 0]
    for k, (label, own) in enumerate(data.groupby("model", sort=False)):
        look = style.line(k) | {"linestyle": "none", "markersize": 3.5}
        above.plot(own["mode"], own["other_cm-1"], label=label, **look)
        if k:
            mean = own["difference_percent"].abs().mean()
            text = f"mean of absolute values {mean:.2g} %"
            below.plot(own["mode"], own["difference_percent"], label=text, **look)
    above.set_ylabel("frequency / cm$^{-1}$")
    below.set_ylabel("difference / %")
    below.set_xlabel("normal mode of the reference")
    below.axhline(0, color=style.GREY, lw=0.8)
    for ax in (above, below):
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=7.5)
    return picture, data.to_csv(index=False)
