"""Local chemical potentials on surfaces around molecules, one row of panels per architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from schnet.errors import SchNetError, known_or_nearest
from schnet.figures import style
from schnet.figures.results import options, runs_of, trained_model
from schnet.run import Run

if TYPE_CHECKING:
    from ase import Atoms

    from schnet.analysis.surface import Surface

READS = ("model_file", "data", "split")
EXTRAS = ("html",)
#: molecules: of schnet/analysis/molecules.xyz, or names that ase.build.molecule knows
OPTIONS = {
    "molecules": ["benzene", "toluene", "methane", "pyrazine", "propane"],
    "probe": "C",
    "spacing": 0.12,  # Å, of the grid that surfaces are found on
}
DPI = 220  # surfaces are pixels, in the PDF too
NAMES = {"dtnn": "DTNN", "schnet": "SchNet"}


def uses(run: Run) -> bool:
    """Runs of architectures with probe atoms."""
    from schnet.models import model_class

    return run.settings.method == "neural" and model_class(run.settings.architecture).probes


def check(chosen: dict, where: str) -> None:
    """Raise ConfigError for a molecule or an element that there is not."""
    from schnet.analysis.structures import named_molecule

    for name in chosen["molecules"]:
        named_molecule(name, f"{where}: molecules")
    known_or_nearest(chosen["probe"], chemical_symbols[1:], "element", f"{where}: probe")


def choose(runs: list[Run]) -> list[Run]:
    """One run per architecture: the largest training set, then the most interaction blocks."""
    best: dict[str, Run] = {}
    for run in runs:
        other = best.get(run.settings.architecture)
        if other is None or _rank(run) > _rank(other):
            best[run.settings.architecture] = run
    return [best[name] for name in sorted(best)]


def _rank(run: Run) -> tuple[int, int, int]:
    return run.n_train, _blocks(run), -run.repeat


def _blocks(run: Run) -> int:
    """The number of interaction blocks of a run's model, 0 where it has none."""
    from schnet.models import check_hyperparameters

    checked = check_hyperparameters(run.settings.architecture, run.settings.model)
    return getattr(checked, "n_interactions", 0)


def note(project, figure: dict) -> str:
    """How the surfaces are meant, and what the colours show."""
    probe = options(figure, OPTIONS)["probe"]
    return (
        "Surfaces: Σᵢ ‖r − rᵢ‖⁻² = 3.7 Å⁻²; the paper prints Σᵢ ‖r − rᵢ‖ = 3.7 Å, which no point "
        f"around these molecules fulfils. Probe: {probe}; offsets, constants of its element, are "
        "left out. One colour scale for all surfaces, from the 2nd to the 98th percentile."
    )


def _potentials(
    run: Run, molecules: dict[str, Atoms], surfaces: dict[str, Surface], probe: str
) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """Values on the surfaces and reasons why there are none, by molecule, and their unit."""
    from schnet.analysis.potential import local_potential

    model = trained_model(run)
    values, refused = {}, {}
    for name, atoms in molecules.items():
        try:
            values[name] = local_potential(model, atoms, surfaces[name].vertices, probe)
        except SchNetError as error:
            refused[name] = str(error)
    return values, refused, model.unit


def _row_label(run: Run) -> str:
    name = NAMES.get(run.settings.architecture, run.settings.architecture)
    return f"{name}\nT = {_blocks(run)}, N = {run.n_train:,}"


def _table(surfaces: dict[str, Surface], values: dict[str, dict[str, np.ndarray]]) -> str:
    """CSV with one row per vertex; the columns of values are named by their runs."""
    parts = []
    for name, surface in surfaces.items():
        x, y, z = surface.vertices.round(3).T
        columns = {run: v[name].round(5) for run, v in values.items() if name in v}
        if columns:
            parts.append(pd.DataFrame({"molecule": name, "x": x, "y": y, "z": z} | columns))
    return pd.concat(parts).to_csv(index=False) if parts else "molecule,x,y,z\n"


def draw(project, figure: dict):
    """Surfaces coloured by Ω of the chosen runs; on top the molecules from the same direction."""
    from schnet.analysis import surface as surface_module
    from schnet.analysis.structures import named_molecule

    chosen = options(figure, OPTIONS)
    runs = [run for run in runs_of(project, figure) if uses(run) and run.model_file.exists()]
    runs = choose(runs)
    if not runs:
        picture, _ = style.panels(0, columns=1, width=5.6, height=3.0)
        return picture, "molecule,x,y,z\n", {"html": "<!doctype html>no run is there yet\n"}
    molecules = {name: named_molecule(name) for name in chosen["molecules"]}
    spacing = chosen["spacing"]
    surfaces = {
        name: surface_module.isosurface(atoms, spacing=spacing) for name, atoms in molecules.items()
    }
    found = {run.path: _potentials(run, molecules, surfaces, chosen["probe"]) for run in runs}
    values = {path: of_run for path, (of_run, _, _) in found.items()}
    unit = style.unit_text(next(iter(found.values()))[2])
    label = rf"$\Omega_\mathrm{{{chosen['probe']}}}$ / {unit}"
    picture = _picture(runs, molecules, surfaces, found, label)
    page = surface_module.interactive(
        f"{figure['title']}: local chemical potential ({project.config['scale']} scale)",
        f"Ω({chosen['probe']}) / {unit}",
        surfaces,
        {_row_label(run).replace("\n", ", "): values[run.path] for run in runs},
    )
    return picture, _table(surfaces, values), {"html": page}


def _picture(runs, molecules, surfaces, found, label: str):
    """Rows: molecules, then one per run; all panels have the same scale in Å."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    from schnet.analysis import surface as s

    turned = {name: s.view(atoms) for name, atoms in molecules.items()}
    extent = [np.ptp(surfaces[n].vertices @ turned[n].T, axis=0) + s.MARGIN for n in molecules]
    widths, heights, _ = zip(*extent, strict=True)
    inches = 7.4 / sum(widths)  # of 1 Å
    size = (8.6, inches * max(heights) * (len(runs) + 1) + 0.3)
    picture, axes = style.grid(len(runs) + 1, len(molecules), size, dpi=DPI, width_ratios=widths)
    everything = [v for of_run, _, _ in found.values() for v in of_run.values()]
    colours = ScalarMappable(Normalize(*s.limits(everything)), s.COLOURS)
    for k, name in enumerate(molecules):
        for ax in axes[:, k]:
            s.frame(ax, surfaces[name], turned[name], max(heights))
        s.draw_molecule(axes[0, k], molecules[name], turned[name])
        axes[0, k].set_title(name, fontsize=9)
        for row, run in enumerate(runs, start=1):
            values, refused, _ = found[run.path]
            if name in values:
                rgb = colours.to_rgba(values[name])
                s.draw_surface(axes[row, k], surfaces[name], rgb, turned[name])
            else:
                style.empty(axes[row, k], f"not drawn:\n{refused[name].split(':')[0]}")
    for row, run in enumerate(runs, start=1):
        axes[row, 0].text(
            -0.06, 0.5, _row_label(run), transform=axes[row, 0].transAxes, rotation=90,
            ha="right", va="center", fontsize=8,
        )  # fmt: skip
    bar = picture.colorbar(colours, ax=axes[1:], extend="both", shrink=0.7, aspect=25, pad=0.01)
    bar.set_label(label)
    return picture
