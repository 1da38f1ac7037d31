"""The first structure of every data set: atoms, bonds, cell and forces in parallel projection.

Beside the picture lies a page in which the structures can be turned.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from schnet.data.describe import full_title
from schnet.data.drawing import draw_structure
from schnet.data.store import Store, Structure
from schnet.figures import style
from schnet.figures.results import DATA, left_out, options, stores
from schnet.viewer import structures_page

DRAWS = DATA
EXTRAS = ("html",)
OPTIONS = {"columns": 4, "labels": {}}


def note(project, figure: dict) -> str:
    """What is left out."""
    return left_out(project, figure)


def draw(project, figure: dict):
    """A panel per data set; CSV: one line per atom with position and force."""
    chosen = options(figure, OPTIONS)
    there = stores(project, figure)
    picture, axes = style.panels(len(there), columns=chosen["columns"], width=2.2, height=2.4)
    frames, turning = [], {}
    for ax, (name, store) in zip(axes, there.items(), strict=False):
        structure = store.structure(0)
        draw_structure(ax, structure, fontsize=5)
        title = full_title(store, chosen["labels"].get(name), "\n")
        ax.set_title(f"{title}\n{structure.id}", fontsize=6)
        frames.append(_atoms(name, store, structure))
        below = full_title(store, chosen["labels"].get(name))
        turning[f"{below}: {structure.id}"] = structure
    columns = "dataset,structure,element,x,y,z,unit,force_x,force_y,force_z,force_unit\n"
    table = pd.concat(frames).to_csv(index=False) if frames else columns
    return picture, table, {"html": structures_page(figure["title"], turning)}


def _atoms(name: str, store: Store, structure: Structure) -> pd.DataFrame:
    """Positions in Å and forces of all atoms; no force where the data set has none."""
    about: dict = {"dataset": name, "structure": structure.id}
    about["element"] = [chemical_symbols[z] for z in structure.atomic_numbers]
    about |= dict(zip("xyz", structure.positions.T, strict=True)) | {"unit": "Å"}
    forces = structure.properties.get("forces", np.full(structure.positions.shape, np.nan))
    about |= {f"force_{axis}": column for axis, column in zip("xyz", forces.T, strict=True)}
    unit = store.properties["forces"].unit if "forces" in store.properties else ""
    return pd.DataFrame(about | {"force_unit": unit})
