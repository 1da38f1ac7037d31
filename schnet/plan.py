"""What a scale costs, before anything is started: runs, steps, hours and disk per table."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schnet.device import choose_device
from schnet.errors import ConfigError, known_or_nearest
from schnet.files import read_yaml
from schnet.finished import Finished
from schnet.project import Project
from schnet.project.checks import (
    abbreviations,
    hyperparameters_class,
    own_hyperparameters,
    properties_of,
)
from schnet.provenance import hardware
from schnet.run import Run, RunSpec

COMMITTED = "replication"  # folder below results/ with runs that came with the repository
WARM_UP = 5  # steps before a measurement
BLOCK = 0.3  # seconds of steps that are timed together, at least
BLOCKS = 5  # the last so many must agree within AGREE, or time runs out
AGREE, PATIENCE = 0.05, 10.0  # relative; seconds
# Structures to train on, more than fit into a processor's caches; to validate, and as many to test.
MADE_UP, MADE_UP_VALIDATION = 1000, 8
SHORTEST = 1000  # steps of a finished run; shorter ones are mostly start-up and validation
FLOAT = 4  # bytes of a weight
NUMBER = 8  # bytes of a prediction


class Kind(NamedTuple):
    """What decides the time of a gradient step, or of the whole fit of a method without steps.

    ``model`` tells the hyper-parameters: those that name a run, the readout, and what is not
    default. n_train is None for gradient steps, whose time does not depend on it.
    """

    dataset: str
    method: str
    architecture: str
    model: str
    forces: bool
    n_train: int | None

    def text(self) -> str:
        """For people."""
        what = self.architecture if self.method == "neural" else self.method
        parts = [f"{self.dataset:22}", f"{what:8}", self.model]
        if self.n_train is not None:
            parts.append(f"N={self.n_train:,}")
        parts.append("energy+forces" if self.forces else "one property")
        return " ".join(filter(None, parts))


def kind_of(settings: dict) -> Kind:
    """The kind of a run with these settings.

    Raises ConfigError for a method, an architecture or a hyper-parameter that does not exist.
    """
    method = settings.get("method", "neural")
    architecture = settings.get("architecture", "schnet")
    spec = RunSpec(
        settings["dataset"],
        settings["target"],
        method=method,
        architecture=architecture,
        model=settings.get("model", {}),
    )
    neural = method == "neural"
    return Kind(
        settings["dataset"],
        method,
        architecture if neural else "",
        _model_text(spec),
        bool(settings.get("forces")),
        None if neural else settings.get("n_train"),
    )


def _model_text(spec: RunSpec) -> str:
    """Hyper-parameters in short, those always named and those not default: ``T=6 F=64 sum``."""
    defaults = {f.name: f.default for f in fields(hyperparameters_class(spec))}
    model = own_hyperparameters(spec)
    parts = []
    for name, letter in abbreviations(spec).items():
        parts.append(f"{letter}={model.pop(name, defaults[name])}")
    readout = model.pop("readout", defaults.get("readout"))
    parts += [f"{name}={value}" for name, value in sorted(model.items())]
    return " ".join(filter(None, [*parts, readout]))


@dataclass(frozen=True)
class Prices:
    """Seconds per gradient step, or per fit of a method without steps, all of one origin.

    Attributes:
        origin: for people: where every one of them comes from. seconds: by kind of run.
        others: for people: what tells those of a kind that is not there.
    """

    origin: str
    seconds: dict[Kind, float]
    others: str = "--measure times those with gradient steps"


def finished(results: Path, threads: int, device: str) -> Prices:
    """Medians of finished runs: of this machine's, or where there are none, of one other hardware.

    Args:
        results: folder with finished runs anywhere below.
        threads, device: that they must have used.
    """
    found: dict[tuple[bool, str], dict[Kind, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(Path(results).glob("**/runs/**/run.yaml")):
        about = read_yaml(path)
        run = Finished.of(about)
        execution = about.get("execution", {})
        if (execution.get("device", device), execution.get("threads", threads)) != (
            device,
            threads,
        ):
            continue
        if run.seconds is None or (run.steps or SHORTEST) < SHORTEST:
            continue
        try:
            kind = kind_of(about["run"])
        except ConfigError:
            continue  # of a method or an architecture that is gone
        committed = COMMITTED in path.relative_to(results).parts
        found[committed, run.hardware][kind].append(run.seconds / (run.steps or 1))
    if not found:
        return Prices("nothing: there are no finished runs", {})
    here = (False, hardware(device))
    chosen = here if here in found else max(found, key=lambda key: (not key[0], len(found[key])))
    origin = f"finished runs of this machine ({chosen[1]}, {threads} threads)"
    if chosen != here:
        came = " that came with the repository" if chosen[0] else ""
        origin = f"finished runs{came} on other hardware ({chosen[1]}, {threads} threads)"
    return Prices(origin, {k: statistics.median(v) for k, v in found[chosen].items()})


def measured(project: Project, threads: int, device: str) -> Prices:
    """Every kind of run of the project, timed here and now.

    Methods without gradient steps are not timed: their whole fit would have to be done.
    """
    runs: dict[Kind, Run] = {}
    for run in project.runs.values():
        if run.settings.method == "neural":
            runs.setdefault(kind_of(run.settings.to_dict()), run)
    seconds = {}
    for number, (kind, run) in enumerate(runs.items(), start=1):
        seconds[kind] = measure(run, project.sources[run.dataset], threads, device)
        print(f"{number}/{len(runs)} {kind.text()} {seconds[kind]:.5f} s", file=sys.stderr)
    origin = f"measured here and now ({hardware(device)}, {threads} threads)"
    return Prices(origin, seconds, others="fits without gradient steps are not timed")


def measure(run: Run, source: dict, threads: int, device: str) -> float:
    """Seconds per training step on this machine, with made-up structures.

    Args:
        run: of a method with gradient steps.
        source: what workflow/sources.yaml says of its data set: atoms, atoms_spread.
        threads, device: of the training.
    """
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Property, Store, write_store

    settings = run.settings
    cutoff = settings.model.get("cutoff")
    properties = {settings.target: Property("eV", "target")}
    if settings.forces:
        properties[settings.forces] = Property("eV/Å", "forces", per_atom=True)
    with tempfile.TemporaryDirectory() as folder:
        data, split = Path(folder) / "data.h5", Path(folder) / "split.npz"
        n_train = max(MADE_UP, settings.batch_size)
        structures = _made_up(settings, source, n_train + 2 * MADE_UP_VALIDATION)
        write_store(data, structures, properties, name="plan", cutoff=cutoff)
        store = Store(data)
        parts = make_split(store, n_train=n_train, n_validation=MADE_UP_VALIDATION, seed=0)
        save_split(split, store, parts)
        spec = replace(settings, n_train=n_train, n_validation=MADE_UP_VALIDATION)
        spec = replace(spec, data=str(data), split=str(split), neighbours=None)
        return seconds_per_step(spec, folder, threads, device)


def seconds_per_step(run: RunSpec, folder, threads: int, device: str) -> float:
    """Seconds per training step on this machine.

    Args:
        run: settings, with the paths of data and split.
        folder: of the training; nothing is written there.
        threads, device: of the training.
    """
    from schnet.training.loop import Trainer

    return _time(Trainer(run, folder, threads=threads, device=device).train_step)


def _time(step) -> float:
    """Seconds of one step, the median of blocks of steps once they agree.

    Args:
        step: takes one and returns its loss; reading that waits for a GPU.
    """
    for _ in range(WARM_UP):
        float(step())
    blocks: list[float] = []
    begin = time.perf_counter()
    while True:
        calls, block = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - block < BLOCK:
            loss = step()
            calls += 1
        float(loss)
        blocks.append((time.perf_counter() - block) / calls)
        last = blocks[-BLOCKS:]
        median = statistics.median(last)
        agree = len(last) == BLOCKS and max(last) - min(last) < AGREE * median
        if agree or (len(blocks) >= 2 and time.perf_counter() - begin > PATIENCE):
            return median


def _sizes(source: dict, count: int) -> np.ndarray:
    """Numbers of atoms as mixed as those of a data set: [count], log-normal."""
    mean, spread = source.get("atoms", 20), source.get("atoms_spread", 0.0)
    if not spread:
        return np.full(count, mean)
    width = np.sqrt(np.log(1 + spread**2))
    drawn = np.random.default_rng(1).lognormal(np.log(mean) - width**2 / 2, width, count)
    return np.maximum(2, np.rint(drawn)).astype(int)


def _made_up(settings: RunSpec, source: dict, count: int):
    """Structures on a jittered grid, as dense as molecules, or as crystals with a cutoff."""
    from schnet.data.store import Structure

    rng = np.random.default_rng(0)
    cutoff = settings.model.get("cutoff")
    spacing = 2.6 if cutoff else 1.3  # Å
    for k, atoms in enumerate(_sizes(source, count)):
        side = int(np.ceil(atoms ** (1 / 3)))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
        positions = grid[:atoms] * spacing + rng.normal(0, 0.1, (atoms, 3))
        # as many layers as there are atoms for: no cell is mostly empty
        layers = int(np.ceil(atoms / side**2))
        cell = np.diag([layers, side, side]) * spacing if cutoff else None
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
        runs, steps: counts. done: how many of the runs are finished. hours: of runs with a known
            time. left: of those that are not finished. disk: bytes.
        unknown: how many runs have no known time, by kind.
    """

    experiment: str
    runs: int = 0
    done: int = 0
    steps: int = 0
    hours: float = 0.0
    left: float = 0.0
    disk: float = 0.0
    unknown: dict[Kind, int] = field(default_factory=dict)

    def add(self, run: Run, seconds: float | None, disk: float):
        """Count a run; seconds: per step or per fit, None where they are not known."""
        settings = run.settings
        steps = settings.steps if settings.method == "neural" else 0
        done = run.metrics_file.exists()
        self.runs += 1
        self.done += done
        self.steps += steps
        self.disk += disk
        if seconds is None:
            kind = kind_of(settings.to_dict())
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
        else:
            hours = seconds * (steps or 1) / 3600
            self.hours += hours
            self.left += 0.0 if done else hours

    def __iadd__(self, other: Cost) -> Cost:
        """Add the runs of another experiment."""
        self.runs += other.runs
        self.done += other.done
        self.steps += other.steps
        self.hours += other.hours
        self.left += other.left
        self.disk += other.disk
        for kind, runs in other.unknown.items():
            self.unknown[kind] = self.unknown.get(kind, 0) + runs
        return self

    def line(self) -> str:
        """A row of the table."""
        unknown = sum(self.unknown.values())
        hours, left = f"{self.hours:.2f}", f"{self.left:.2f}"
        if unknown == self.runs > 0:
            hours = left = "unknown"
        if self.done == self.runs:
            left = "0"
        text = f"{self.experiment:24} {self.runs:5} {self.done:5} {self.steps:13,} {hours:>8}"
        text += f" {left:>8} {self.disk / 1e9:9.2f}"
        if unknown:
            text += f"  {unknown} runs of {len(self.unknown)} kinds unknown"
        return text


def _only(project: Project, names: Sequence[str]) -> Project:
    """The part of a project that some experiments need, without simulations."""
    for name in names:
        known_or_nearest(name, project.experiments, "experiment", "schnet plan")
    runs = {run.path: run for name in names for run in project.runs_of(name)}
    experiments = {name: project.experiments[name] for name in names}
    return replace(project, experiments=experiments, runs=runs, simulations={})


def show(
    project: Project,
    experiments: Sequence[str] = (),
    *,
    measure: bool = False,
    threads: int = 1,
    device: str = "cpu",
):
    """Print runs, steps, hours and disk per table.

    All hours come from one place: finished runs of one hardware, or, with ``measure``, short
    trainings on made-up structures here. What has no time is called unknown, not guessed.

    Args:
        project: the resolved configuration.
        experiments: names of those that are planned; none: all, and simulations.
        measure: whether to time every kind of run on this machine, whatever has been run.
        threads, device: of these timings, or of the finished runs that count.

    Raises:
        ConfigError: no GPU where one is asked for, or no such experiment.
    """
    device = choose_device(device)
    if experiments:
        project = _only(project, experiments)
    results = Path(project.config["results_dir"])
    if measure:
        prices = measured(project, threads, device)
    else:
        prices = finished(results, threads, device)
    costs, seen = [], set()
    for name in project.experiments_in_order():
        cost = Cost(name)
        for run in project.runs_of(name):
            if run.path in seen:
                continue
            seen.add(run.path)
            seconds = prices.seconds.get(kind_of(run.settings.to_dict()))
            cost.add(run, seconds, _disk(project, run))
        costs.append(cost)
    _print(project, costs, prices, device)
    if project.simulations:
        _print_simulations(project)
    print(f"seconds per step (per fit where there are no steps), {prices.origin}:")
    for kind in sorted({kind_of(run.settings.to_dict()) for run in project.runs.values()}, key=str):
        seconds = prices.seconds.get(kind)
        print(f"  {kind.text()} " + ("unknown" if seconds is None else f"{seconds:.5f} s"))


def _print_simulations(project: Project):
    """Jobs, force evaluations and the time that a cluster is asked for, per simulation."""
    print(f"{'simulation':24} {'jobs':>5} {'done':>5} {'evaluations':>13} {'asked / h':>9}")
    for name, jobs in project.simulations.items():
        evaluations = sum(
            job.settings.get("steps", 0) * job.settings.get("beads", 1) for job in jobs
        )
        asked = sum(job.runtime for job in jobs) / 60
        done = sum(job.result.exists() for job in jobs)
        print(f"{name:24} {len(jobs):5} {done:5} {evaluations:13,} {asked:9.2f}")


def _print(project: Project, costs: list[Cost], prices: Prices, device: str):
    """The table of costs and what its numbers mean."""
    print(
        f"scale {project.config['scale']}: {len(project.runs)} runs; "
        "runs shared between tables are counted once, where they occur first"
    )
    counts = f"{'experiment':24} {'runs':>5} {'done':>5} {'steps':>13}"
    print(f"{counts} {'hours':>8} {'left':>8} {'disk / GB':>9}")
    total = Cost("all")
    for cost in costs:
        print(cost.line())
        total += cost
    print(total.line())
    what = "GPU" if device == "cuda" else "CPU"
    print(f"hours: {what}, one training after the other, from {prices.origin};")
    print(
        "left: those of runs that are not finished; training only, validation adds a few per cent,"
    )
    print(f"and runs of unknown cost add to both ({prices.others})")
