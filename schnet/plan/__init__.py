"""What a scale costs, before anything is started: runs, steps, hours and disk per table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from schnet.device import choose_device
from schnet.errors import known_or_nearest
from schnet.plan.costs import Cost, disk
from schnet.plan.kinds import kind_of
from schnet.plan.prices import Prices, finished, measured
from schnet.project import Project

__all__ = ["show"]


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
            cost.add(run, seconds, disk(project, run))
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
