"""What the runs of an experiment cost together: steps, hours, disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from schnet.plan.kinds import Kind, kind_of
from schnet.project import Project
from schnet.project.checks import properties_of
from schnet.run import Run, RunSpec

FLOAT = 4  # bytes of a weight
NUMBER = 8  # bytes of a prediction


def _parameters(settings: RunSpec) -> int:
    """Weights of the model of a run; 0 where they are no neural network's."""
    from schnet.models import build

    if settings.method != "neural":
        return 0
    model = build(settings.architecture, settings.model)
    return sum(p.numel() for p in model.parameters())


def disk(project: Project, run: Run) -> float:
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
