"""What one gradient step, or one fit, of every kind of run takes: from finished runs, or timed."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from schnet.errors import ConfigError
from schnet.files import read_yaml
from schnet.finished import Finished
from schnet.plan.kinds import Kind, kind_of
from schnet.plan.timing import measure
from schnet.project import Project
from schnet.provenance import hardware
from schnet.run import Run

COMMITTED = "replication"  # folder below results/ with runs that came with the repository
SHORTEST = 1000  # steps of a finished run; shorter ones are mostly start-up and validation


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
