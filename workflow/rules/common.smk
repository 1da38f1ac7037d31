# The project resolved from the configuration; everything else in these files only connects.
import json
import os
import sys

from schnet.errors import SchNetError
from schnet.project import load_project

# the schnet command of the environment that snakemake runs in, activated or not
shell.prefix(f"export PATH={os.path.dirname(sys.executable)}:$PATH; ")

try:
    PROJECT = load_project(config)
except SchNetError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(PROJECT.results)
DATA = str(PROJECT.data)
RESOLVED = f"{RESULTS}/config.json"
TABLES = [name for name in PROJECT.experiments if name.startswith("table")]
TRAINING_DEVICE = PROJECT.config["device"]
TRAINING_THREADS = PROJECT.config["threads"]
# whether the raw files are made here instead of fetched
MADE = PROJECT.scale["data"] == "reference"
# one GPU for each job, none where the CPU is asked for; slurm/config.yaml may name its type
TRAINING_GRES = "" if TRAINING_DEVICE == "cpu" else "gpu:1"
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


def generate_options(wildcards):
    return json.dumps(
        PROJECT.scale["families"][family(wildcards.dataset)].get("generate", {})
    )


def fetch_options(wildcards):
    if (
        wildcards.dataset == "materials_project"
        and PROJECT.config["materials_project"] == "live"
    ):
        return "--live"
    return f"--mirror '{PROJECT.config['mirror']}'" if PROJECT.config["mirror"] else ""


def family(dataset):
    from schnet.project import family_of

    return family_of(dataset, PROJECT.scale)


def raw_manifest(wildcards):
    derived = "derived_from" in PROJECT.sources[wildcards.dataset] and not MADE
    return (
        f"{DATA}/raw/{wildcards.dataset}/{'distilled/' if derived else ''}sources.json"
    )


def split_of(wildcards):
    return PROJECT.splits[f"{wildcards.dataset}/{wildcards.split}.npz"]


FIGURE_RUNS = {
    "figure_3": ["figure_3"],
    "figure_4": ["table_2"],
    "figure_9": ["table_1"],
    "figure_10": ["table_2"],
    "training_curves": list(PROJECT.experiments),
    "predicted_true": list(PROJECT.experiments),
}
FIGURE_FILE = {
    "figure_3": "metrics.json",
    "figure_4": "model.pt",
    "training_curves": "history.csv",
}


def figure_input(name):
    file = FIGURE_FILE.get(name, "predictions.h5")
    return [m.replace("metrics.json", file) for m in rendered_runs(FIGURE_RUNS[name])]
