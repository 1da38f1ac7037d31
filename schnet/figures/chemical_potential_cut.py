"""Cuts through the local chemical potential of crystals."""

from __future__ import annotations

import pandas as pd
from ase.data import atomic_numbers, chemical_symbols

from schnet.errors import known_or_nearest
from schnet.figures import style
from schnet.figures.results import options, runs_of, trained_model
from schnet.run import Run

READS = ("model_file", "data", "split")
#: size: of the cuts in Å; points: along their sides
OPTIONS = {"probe": "C", "size": 10.0, "points": 101}


def uses(run: Run) -> bool:
    """Runs of architectures with probe atoms and a cutoff, which crystals need."""
    from schnet.models import model_class

    settings = run.settings
    if settings.method != "neural" or settings.model.get("cutoff") is None:
        return False
    return model_class(settings.architecture).probes


def check(chosen: dict, where: str) -> None:
    """Raise ConfigError for an element that there is not."""
    known_or_nearest(chosen["probe"], chemical_symbols[1:], "element", f"{where}: probe")


def choose(runs: list[Run]) -> list[Run]:
    """The first repeat with the largest training set."""
    return sorted(runs, key=lambda run: (-run.n_train, run.repeat))[:1]


def note(project, figure: dict) -> str:
    """What takes the place of carbon where the model does not know it."""
    return (
        "Offsets, constants of the probe's element, are left out; colours from the 2nd to the "
        "98th percentile of each panel. Where the training data have no carbon (or not the "
        "probe's element), the hexagonal and the cubic close-packed crystal of their lightest "
        "element stand in, probed by it."
    )


def crystals(elements: list[int], probe: str):
    """The probe and the crystals by name: of carbon, or of the lightest element known.

    Args:
        elements: atomic numbers that the model was trained on.
        probe: symbol of the element of the probe.
    """
    from schnet.analysis.structures import close_packed, diamond, graphite

    if {atomic_numbers["C"], atomic_numbers[probe]} <= set(elements):
        return probe, {"graphite (0001)": graphite(), "diamond (001)": diamond()}
    symbol = chemical_symbols[min(elements)]
    hexagonal, cubic = close_packed(symbol)
    return symbol, {f"hcp {symbol} (0001)": hexagonal, f"fcc {symbol} (001)": cubic}


def draw(project, figure: dict):
    """Ω in the plane of the first two lattice vectors through the first atom (Fig. 6)."""
    from schnet.analysis.plane import cut_plane
    from schnet.analysis.potential import local_potential

    chosen = options(figure, OPTIONS)
    runs = choose([r for r in runs_of(project, figure) if uses(r) and r.model_file.exists()])
    if not runs:
        picture, _ = style.panels(0, columns=1, width=5.6, height=3.0)
        return picture, "crystal,x,y\n"
    model = trained_model(runs[0])
    elements = model.elements.nonzero().flatten().tolist()
    probe, structures = crystals(elements, chosen["probe"])
    unit = style.unit_text(model.unit)
    picture, axes = style.grid(1, len(structures), (3.9 * len(structures), 3.3))
    parts = []
    for ax, (name, atoms) in zip(axes[0], structures.items(), strict=True):
        plane = cut_plane(atoms, chosen["size"], chosen["points"])
        value = local_potential(model, atoms, plane.points, probe)
        plane.draw(ax, value, rf"$\Omega_\mathrm{{{probe}}}$ / {unit}")
        ax.set_title(name, fontsize=9)
        u, v = plane.coordinates.round(3).T
        columns = {"crystal": name, "probe": probe, "x": u, "y": v, "potential": value.round(5)}
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts).assign(unit=model.unit)
    return picture, table.to_csv(index=False)
