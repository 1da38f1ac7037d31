"""What figures read: runs of a declaration, test predictions, printed values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from schnet.data.splits import load_split
from schnet.data.store import Store
from schnet.run import Run

if TYPE_CHECKING:
    from schnet.models import Model
    from schnet.project import Project


#: of a kind of figures: it draws from converted data sets
DATA = "data"


def datasets_of(project: Project, figure: dict) -> list[str]:
    """The data sets of a figure that some run of the scale needs.

    No data set is fetched or made for a picture alone.
    """
    needed = set(project.datasets())
    return [name for name in figure["datasets"] if name in needed]


def stores(project: Project, figure: dict) -> dict[str, Store]:
    """The data sets of a figure that are converted, opened, by name."""
    files = {name: project.data_file(name) for name in datasets_of(project, figure)}
    return {name: Store(file) for name, file in files.items() if file.exists()}


def left_out(project: Project, figure: dict) -> str:
    """A sentence on the data sets that no run of the scale needs; empty where there are none."""
    needed = datasets_of(project, figure)
    absent = [project.sources[name]["title"] for name in figure["datasets"] if name not in needed]
    return f"No run at this scale needs, hence not drawn: {', '.join(absent)}." if absent else ""


def experiments_of(project: Project, figure: dict) -> list[str]:
    """The names of the experiments that a figure draws from."""
    wanted = figure.get("experiments", [])
    return list(project.experiments) if wanted == "all" else list(wanted)


def runs_of(project: Project, figure: dict) -> list[Run]:
    """The runs of a figure's experiments, each once, finished or not."""
    runs = (run for name in experiments_of(project, figure) for run in project.runs_of(name))
    return list({run.path: run for run in runs}.values())


def options(figure: dict, defaults: dict) -> dict:
    """The options of a figure; of a choice among several the first is the default."""
    usual = {k: v[0] if isinstance(v, tuple) else v for k, v in defaults.items()}
    return usual | figure.get("options", {})


def task(run: Run) -> tuple[str, str, str | None]:
    """What a run learns: data set, target, forces."""
    return run.dataset, run.settings.target, run.settings.forces


def task_title(key: tuple[str, str, str | None], labels: dict[str, str]) -> str:
    """The title of a panel for a task; ``labels`` by data set or target."""
    dataset, target, forces = key
    names = [labels.get(name, name.replace("_", " ")) for name in (dataset, target)]
    return ", ".join(filter(None, names)) + (", with forces" if forces else "")


@dataclass
class Predictions:
    """Predictions of a run for one part of its split: true, predicted [M], unit."""

    part: str
    true: np.ndarray
    predicted: np.ndarray
    unit: str


def predictions(run: Run, part: str = "test", *, forces: bool = False) -> Predictions | None:
    """The predictions of a run, or None while there are none.

    Args:
        run: the run.
        part: of its split.
        forces: those of the components of the forces, in the unit of the target per Å.

    Where a run has no such part, it is the first one whose name starts with "test".
    """
    if not run.predictions_file.exists():
        return None
    with h5py.File(run.predictions_file, "r") as h5:
        parts = [part, *sorted(name for name in h5 if name.startswith("test"))]
        found = next((name for name in parts if name in h5), None)
        if found is None:
            return None
        group = h5[found]
        unit = str(group.attrs["unit"])
        if forces:
            true, predicted = (group[f"forces_{kind}"][:].ravel() for kind in ("true", "predicted"))
            return Predictions(found, true, predicted, f"{unit}/Å")
        return Predictions(found, group["true"][:], group["predicted"][:], unit)


def trained_elements(run: Run, model: Model) -> list[int]:
    """Atomic numbers in the training data of a run; nothing was learned of others."""
    if bool(model.elements.any()):
        return model.elements.nonzero().flatten().tolist()
    store = Store(run.data)  # model files of earlier versions do not tell
    with store.open() as h5:
        numbers = h5["atomic_numbers"][:]
    owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    return np.unique(numbers[np.isin(owner, load_split(run.split, store)["train"])]).tolist()


def trained_model(run: Run) -> Model:
    """The model of a finished run, which refuses elements that it was not trained on."""
    import torch

    from schnet.models import load_model

    model = load_model(run.model_file)
    model.set_elements(torch.tensor(trained_elements(run, model)))
    return model


def published(project: Project, experiment: str):
    """Printed values of an experiment: a pandas.DataFrame with row, column, value, unit."""
    import pandas as pd

    name = project.experiments[experiment].get("published")
    if name is None:
        return pd.DataFrame({"row": [], "column": [], "value": [], "unit": []})
    return pd.read_csv(Path(project.root) / "workflow" / "published" / name)
