"""What a scale would cost, before anything is started."""

from __future__ import annotations

import statistics

from schnet.files import read_yaml
from schnet.project import ROOT, Project


def seconds_per_step(project: Project) -> dict[tuple, float]:
    """Measured seconds per step of all finished runs at any scale: (family, T, F, forces) -> median."""
    found: dict[tuple, list[float]] = {}
    for path in (ROOT / "results").glob("*/runs/**/run.yaml"):
        about = read_yaml(path)
        key = _key(about["run"])
        found.setdefault(key, []).append(about["result"]["training_seconds"] / max(1, about["result"]["steps"]))
    return {k: statistics.median(v) for k, v in found.items()}


def _key(run: dict) -> tuple:
    model = run["model"]
    return run["dataset"], model.get("n_interactions", 6), model.get("n_features", 64), bool(run.get("forces"))


def show(project: Project):
    """Print runs, steps and hours per table from measured seconds per step; nothing is guessed where nothing was measured."""
    measured = seconds_per_step(project)
    print(f"scale {project.config['scale']}: {len(project.runs)} runs")
    print(f"{'experiment':16} {'runs':>5} {'steps':>14} {'hours':>9}  not measured")
    seen: set[str] = set()
    total = 0.0
    for name in project.experiments:
        runs = [r for r in project.runs_of(name) if r not in seen]
        seen.update(runs)
        hours, unknown = 0.0, 0
        for run in runs:
            spec = project.runs[run]
            seconds = measured.get(_key(spec))
            if seconds is None:
                unknown += 1
            else:
                hours += seconds * spec["steps"] / 3600
        total += hours
        steps = sum(project.runs[r]["steps"] for r in runs)
        print(f"{name:16} {len(runs):5} {steps:14,} {hours:9.2f}  {unknown or ''}")
    print(f"one training after the other on the hardware of the measured runs: {total:,.1f} hours; runs shared between tables are counted once")
