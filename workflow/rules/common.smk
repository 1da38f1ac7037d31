# The project resolved from the configuration; everything else in these files only connects.
import json
import os
import sys

from schnet.errors import SchNetError
from schnet.project import load_project

try:
    PROJECT = load_project(config)
except SchNetError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(PROJECT.results)
DATA = str(PROJECT.data)
RESOLVED = f"{RESULTS}/config.json"
TABLES = [name for name in PROJECT.experiments if name.startswith("table")]
FIGURES = [
    "figure_3",
    "figure_4",
    "figure_9",
    "figure_10",
    "training_curves",
    "predicted_true",
]
RUN_FILES = ["model.pt", "run.yaml", "history.csv"]


wildcard_constraints:
    dataset="[a-z0-9_]+",
    run=r"[^/]+/[^/]+/[^/]+/[^/]+/rep\d+",


def scale_resource(name, default):
    return PROJECT.scale.get("resources", {}).get(name, default)


def rendered_runs(names):
    """Metrics of all runs that the given experiments need."""
    runs = dict.fromkeys(run for name in names for run in PROJECT.runs_of(name))
    return [f"{RESULTS}/runs/{run}/metrics.json" for run in runs]


def data_of(names):
    """Data sets behind the given experiments: runs found beside other data are trained again."""
    runs = dict.fromkeys(run for name in names for run in PROJECT.runs_of(name))
    return sorted({PROJECT.runs[run]["data"] for run in runs})


rule resolve:
    output:
        RESOLVED,
    log:
        f"{RESULTS}/logs/resolve.log",
    localrule: True
    params:
        config=json.dumps(PROJECT.config, sort_keys=True),
    shell:
        "schnet resolve --config {params.config:q} {output} 2> {log}"
