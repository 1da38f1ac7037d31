"""Trained models by name: those that lie in results/replication, and in one's own results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ase.data import chemical_symbols

from schnet.errors import ConfigError, ModelError, known_or_nearest
from schnet.models.files import load_model
from schnet.run import MODEL_FILE, read_finished, read_metrics
from schnet.workflow import find_workflow, load_sources

MANY = 9  # elements that are counted instead of named
CHECKOUT = Path(__file__).resolve().parents[1]  # where results/ is, unless installed without -e


@dataclass(frozen=True)
class Trained:
    """A finished run with its model.

    Attributes:
        file: model.pt.
        dataset, target: what it was trained on. forces: whether on forces as well.
        n_train: training structures. steps: of training.
        quantity, error, unit: mean absolute test error, of the forces where it has them.
    """

    file: Path
    dataset: str
    target: str
    forces: bool
    n_train: int
    steps: int
    quantity: str
    error: float
    unit: str


def _read(folder: Path) -> Trained | None:
    """The run in a folder, or None where it has no test errors yet."""
    if not ((folder / "metrics.json").exists() and (folder / "run.yaml").exists()):
        return None
    finished = read_finished(folder)
    settings = finished["run"]
    parts = read_metrics(folder)["parts"]
    part = next((values for name, values in parts.items() if name.startswith("test")), None)
    if part is None or settings.get("method", "neural") != "neural":
        return None
    forces = bool(settings.get("forces"))
    quantity = "forces" if forces else settings["target"]
    measured = part[quantity]
    steps = finished["result"]["steps"]
    about = settings["dataset"], settings["target"], forces, settings["n_train"], steps
    error = float(measured["mae"])
    return Trained(folder / MODEL_FILE, *about, quantity, error, measured["unit"])


def _roots() -> list[Path]:
    """The workflow of the working directory, and the repository that this code lies in."""
    roots = []
    try:
        roots.append(find_workflow())
    except ConfigError:
        pass
    if (CHECKOUT / "workflow" / "sources.yaml").exists():
        roots.append(CHECKOUT)
    return list(dict.fromkeys(roots))


def _results() -> list[Path]:
    """Folders with runs of scales that people use; the demo's numbers mean nothing."""
    names = ("results/small", "results/paper", "results/replication/small")
    return [root / name for root in _roots() for name in names]


def trained_models() -> dict[str, Trained]:
    """The best model of every data set and target, by name.

    The best has the smallest test error. A model with forces is called like the data set
    ("md17_ethanol"), others are DATASET_TARGET ("qm9_U0").

    Example:
        >>> trained_models()["md17_ethanol"].n_train
        1000
    """
    found: dict[tuple[str, str, bool], list[Trained]] = defaultdict(list)
    for results in _results():
        for file in sorted(results.glob("runs/**/model.pt")):
            run = _read(file.parent)
            if run is not None:
                found[run.dataset, run.target, run.forces].append(run)
    named = {
        dataset if forces else f"{dataset}_{target}": min(runs, key=lambda run: run.error)
        for (dataset, target, forces), runs in found.items()
    }
    return dict(sorted(named.items()))


def models_table(models: dict[str, Trained]) -> pd.DataFrame:
    """What people want to know of models before they use one.

    Args:
        models: see `trained_models`.

    Returns:
        A row for each: name, N (training structures), steps of training, test error, elements,
        licence of the data.
    """
    sources: dict = {}
    for root in _roots():
        sources = load_sources(root) | sources
    rows = []
    for name, model in models.items():
        seen = load_model(model.file).elements.nonzero().flatten().tolist()
        elements = " ".join(chemical_symbols[z] for z in seen)
        rows.append(
            {
                "name": name,
                "N": f"{model.n_train:,}",
                "steps": f"{model.steps:,}",
                "test error": f"{model.quantity} MAE {model.error:.3g} {model.unit}",
                "elements": elements if len(seen) <= MANY else f"{len(seen)} elements",
                "licence of the data": sources.get(model.dataset, {}).get("licence", ""),
            }
        )
    return pd.DataFrame(rows)


def find_model(model: str | Path) -> Path:
    """The file of a model that is given by its path, its run's directory or its name.

    Raises:
        ModelError: there is no such file, and no such name.

    Example:
        >>> find_model("md17_ethanol").name
        'model.pt'
    """
    path = Path(model)
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path  # what is wrong with it is said by its reader
    named = trained_models()
    if not named:
        raise ModelError(
            f"{model}: no such file, and no trained models here; clone the repository, whose "
            "results/replication has some, or train your own"
        )
    try:
        known_or_nearest(str(model), named, "trained model", "schnet models")
    except ConfigError as error:
        raise ModelError(f"{model}: no such file; {error}") from error
    return named[str(model)].file
