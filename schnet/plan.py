"""What a scale costs, before anything is started: runs, steps, hours and disk per table."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schnet.errors import ConfigError
from schnet.files import read_yaml
from schnet.finished import Finished
from schnet.project import Project
from schnet.project.checks import hyperparameters_class, properties_of
from schnet.run import Run, RunSpec

STEPS = 20  # timed steps of a measurement, after some to warm up
WARM_UP = 5
MADE_UP, MADE_UP_VALIDATION = 80, 8  # structures to train on; to validate, and as many to test
SHORTEST = 1000  # steps of a finished run; shorter ones are mostly start-up and validation
FLOAT = 4  # bytes of a weight
NUMBER = 8  # bytes of a prediction


class Kind(NamedTuple):
    """What decides the time of a gradient step, or of the whole fit of a method without steps.

    T, F and readout are None where the method has no such thing; n_train is None for gradient
    steps, whose time does not depend on it.
    """

    dataset: str
    method: str
    architecture: str
    interactions: int | None
    features: int | None
    readout: str | None
    forces: bool
    n_train: int | None

    def text(self) -> str:
        """For people."""
        model = self.architecture if self.method == "neural" else self.method
        parts = [f"{self.dataset:22}", f"{model:8}"]
        if self.interactions is not None:
            parts.append(f"T={self.interactions}")
        if self.features is not None:
            parts.append(f"F={self.features:3}")
        if self.readout is not None:
            parts.append(f"{self.readout:6}")
        if self.n_train is not None:
            parts.append(f"N={self.n_train:,}")
        parts.append("energy+forces" if self.forces else "one property")
        return " ".join(parts)


def kind_of(settings: dict) -> Kind:
    """The kind of a run with these settings.

    Raises ConfigError for a method or an architecture that does not exist.
    """
    method = settings.get("method", "neural")
    architecture = settings.get("architecture", "schnet")
    spec = RunSpec(settings["dataset"], settings["target"], method=method)
    parameters = hyperparameters_class(replace(spec, architecture=architecture))
    model = {f.name: f.default for f in parameters.__dataclass_fields__.values()}
    model |= settings.get("model", {})
    neural = method == "neural"
    return Kind(
        settings["dataset"],
        method,
        architecture if neural else "",
        model.get("n_interactions"),
        model.get("n_features"),
        model.get("readout"),
        bool(settings.get("forces")),
        None if neural else settings.get("n_train"),
    )


def finished(results: Path) -> dict[Kind, float]:
    """Median seconds per step, or per fit of a method without steps, of finished runs by kind."""
    found: dict[Kind, list[float]] = {}
    for path in sorted(Path(results).glob("**/runs/**/run.yaml")):
        about = read_yaml(path)
        run = Finished.of(about)
        if run.seconds is None or (run.steps or SHORTEST) < SHORTEST:
            continue
        try:
            kind = kind_of(about["run"])
        except ConfigError:
            continue  # of a method or an architecture that is gone
        found.setdefault(kind, []).append(run.seconds / (run.steps or 1))
    return {kind: statistics.median(seconds) for kind, seconds in found.items()}


def measure(run: Run, atoms: int, threads: int, device: str) -> float:
    """Seconds per training step on this machine, with made-up structures.

    Args:
        run: of a method with gradient steps.
        atoms: in a structure, the data set's mean.
        threads, device: of the training.
    """
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Property, Store, write_store
    from schnet.training.loop import Trainer

    settings = run.settings
    cutoff = settings.model.get("cutoff")
    properties = {settings.target: Property("eV", "target")}
    if settings.forces:
        properties[settings.forces] = Property("eV/Å", "forces", per_atom=True)
    with tempfile.TemporaryDirectory() as folder:
        data, split = Path(folder) / "data.h5", Path(folder) / "split.npz"
        n_train = max(MADE_UP, settings.batch_size)
        structures = _made_up(settings, atoms, n_train + 2 * MADE_UP_VALIDATION)
        write_store(data, structures, properties, name="plan", cutoff=cutoff)
        store = Store(data)
        parts = make_split(store, n_train=n_train, n_validation=MADE_UP_VALIDATION, seed=0)
        save_split(split, store, parts)
        spec = replace(settings, n_train=n_train, n_validation=MADE_UP_VALIDATION)
        spec = replace(spec, data=str(data), split=str(split), neighbours=None)
        trainer = Trainer(spec, folder, threads=threads, device=device)
        for _ in range(WARM_UP):
            trainer.train_step()
        begin = time.perf_counter()
        for _ in range(STEPS):
            loss = trainer.train_step()
        float(loss)  # waits for a GPU
        return (time.perf_counter() - begin) / STEPS


def _made_up(settings: RunSpec, atoms: int, count: int):
    """Structures on a jittered grid, as dense as molecules, or as crystals with a cutoff."""
    from schnet.data.store import Structure

    rng = np.random.default_rng(0)
    cutoff = settings.model.get("cutoff")
    spacing = 2.6 if cutoff else 1.3  # Å
    side = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cell = np.eye(3) * side * spacing if cutoff else None
    for k in range(count):
        positions = grid[:atoms] * spacing + rng.normal(0, 0.1, (atoms, 3))
        values: dict[str, float | np.ndarray] = {settings.target: rng.normal()}
        if settings.forces:
            values[settings.forces] = rng.normal(size=(atoms, 3))
        yield Structure(str(k), rng.choice([1, 6, 7, 8], atoms), positions, values, cell=cell)


def _parameters(settings: RunSpec) -> int:
    """Weights of the model of a run; 0 where they are no neural network's."""
    from schnet.models import build

    if settings.method != "neural":
        return 0
    model = build(settings.architecture, settings.model)
    return sum(p.numel() for p in model.parameters())


def _disk(project: Project, run: Run) -> float:
    """Bytes that a run leaves behind: its weights and every test prediction."""
    settings = run.settings
    source = project.sources[run.dataset]
    copies = 2 if settings.ema else 1  # the average and the weights of the last steps
    weights = FLOAT * _parameters(settings) * copies
    if project.scale["data"] == "reference":
        return weights
    # index, true and predicted value; force components in single precision, true and predicted
    structure = 3 * NUMBER
    if "forces" in properties_of(source["module"]):
        structure += 2 * 3 * FLOAT * source.get("atoms", 20)
    used = (settings.n_train or 0) + (settings.n_validation or 0)
    return weights + structure * max(0, source.get("structures", 0) - used)


@dataclass
class Cost:
    """Cost of the runs that an experiment adds.

    Attributes:
        runs, steps: counts. hours: of those with a known time. disk: bytes.
        unknown: kinds of run whose time is not known.
    """

    experiment: str
    runs: int = 0
    steps: int = 0
    hours: float = 0.0
    disk: float = 0.0
    unknown: set[Kind] = field(default_factory=set)

    def add(self, run: Run, seconds: float | None, disk: float):
        """Count a run; seconds: per step or per fit, None where they are not known."""
        settings = run.settings
        steps = settings.steps if settings.method == "neural" else 0
        self.runs += 1
        self.steps += steps
        self.disk += disk
        if seconds is None:
            self.unknown.add(kind_of(settings.to_dict()))
        else:
            self.hours += seconds * (steps or 1) / 3600

    def line(self) -> str:
        text = f"{self.experiment:14} {self.runs:5} {self.steps:15,} {self.hours:9.2f}"
        text += f" {self.disk / 1e9:10.2f}"
        if self.unknown:
            text += f"  + {len(self.unknown)} kinds of run without a measurement (--measure)"
        return text


def show(project: Project, *, measured: bool = False, threads: int = 1, device: str = "cpu"):
    """Print runs, steps, hours and disk per table.

    Seconds per step come from finished runs or, with ``measured``, from short trainings on made-up
    structures here; what has neither is named, not guessed.

    Args:
        project: the resolved configuration.
        measured: whether to time, on this machine, what no finished run tells of.
        threads, device: of these timings.
    """
    known = finished(Path(project.config["results_dir"]))
    origin = dict.fromkeys(known, "finished runs")
    costs, seen = [], set()
    for name in project.experiments:
        cost = Cost(name)
        for run in project.runs_of(name):
            if run.path in seen:
                continue
            seen.add(run.path)
            kind = kind_of(run.settings.to_dict())
            if measured and kind not in known and kind.method == "neural":
                atoms = project.sources[run.dataset].get("atoms", 20)
                known[kind] = measure(run, atoms, threads, device)
                origin[kind] = f"measured here, {device}, {threads} threads"
            cost.add(run, known.get(kind), _disk(project, run))
        costs.append(cost)
    _print(project, costs)
    _print_simulations(project)
    print("seconds per step (per fit where there are no steps):")
    kinds = {kind_of(run.settings.to_dict()) for run in project.runs.values()}
    for kind in sorted(kinds & set(known), key=str):
        print(f"  {kind.text()} {known[kind]:.5f} s ({origin[kind]})")


def _print_simulations(project: Project):
    """Jobs, force evaluations and the time that a cluster is asked for, per simulation."""
    print(f"{'simulation':14} {'jobs':>5} {'evaluations':>15} {'asked / h':>9}")
    for name, jobs in project.simulations.items():
        evaluations = sum(
            job.settings.get("steps", 0) * job.settings.get("beads", 1) for job in jobs
        )
        asked = sum(job.runtime for job in jobs) / 60
        print(f"{name:14} {len(jobs):5} {evaluations:15,} {asked:9.2f}")


def _print(project: Project, costs: list[Cost]):
    """The table of costs and what its numbers mean."""
    print(
        f"scale {project.config['scale']}: {len(project.runs)} runs; "
        "runs shared between tables are counted once, where they occur first"
    )
    print(f"{'experiment':14} {'runs':>5} {'steps':>15} {'hours':>9} {'disk / GB':>10}")
    total = Cost("all")
    for cost in costs:
        print(cost.line())
        total.runs += cost.runs
        total.steps += cost.steps
        total.hours += cost.hours
        total.disk += cost.disk
    print(total.line())
    print(
        "hours: of one training after the other on the hardware of the measurement "
        "(training only; validation adds a few per cent)"
    )
