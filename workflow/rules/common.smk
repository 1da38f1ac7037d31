# The project resolved from the configuration; everything else in these files only connects.
#
# Rerun triggers: what decides a result travels as input or params. How it is computed (device, threads,
# engine, …) travels as resources, which trigger nothing.
import json
import os
import re
import socket
import sys
from pathlib import Path

from schnet import figures, provenance
from schnet.errors import SchNetError
from schnet.lock import arriving
from schnet.methods import memory_mb
from schnet.parent import ENDS_WITH
from schnet.project import load_project
from schnet.reference import PARALLEL
from schnet.warm import start
from schnet.workflow import EXECUTION_CONFIG

# the schnet command of the environment that snakemake runs in, activated or not
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
)
# what this process starts ends with it: a killed snakemake leaves no training behind
os.environ[ENDS_WITH] = str(os.getpid())

# A killed snakemake leaves its locks behind, by which its next start would be refused. They are
# removed where all it had started has ended with it: not while jobs may go on, on a cluster.
if workflow.is_main_process:
    here = socket.gethostname()
    if workflow.resource_settings.nodes is not None:
        here = "a cluster"
    with arriving(".snakemake/running") as (note, alone):
        locks = list(Path(".snakemake/locks").glob("*.lock"))
        before = note.read()
        if alone and before == here != "a cluster":
            for lock in locks:
                lock.unlink()
        elif here == "a cluster" or not locks:
            note.truncate(0)
            note.write(here)

try:
    PROJECT = load_project(config, workflow.basedir)
except SchNetError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(PROJECT.results)
DATA = str(PROJECT.data)
RESOLVED = f"{RESULTS}/config.json"
TABLES = list(PROJECT.experiments)
# figures with a page to turn them
INTERACTIVE = [f for f in PROJECT.figures if "html" in figures.extras(PROJECT, f)]
# whether the raw files are made here instead of fetched
MADE = PROJECT.made_up
DEVICE = PROJECT.config["device"]
ENGINE = PROJECT.config["engine"]
THREADS = PROJECT.config["threads"]
# one GPU for each job, none where the CPU is asked for; slurm/config.yaml may name its type
GRES = "" if DEVICE == "cpu" else "gpu:1"


def gres(wildcards):
    """A GPU for networks; methods without gradient steps use none."""
    return GRES if settings(wildcards.run).method == "neural" else ""


wildcard_constraints:
    dataset="[a-z0-9_]+",
    run=r"[^/]+/[^/]+/[^/]+/[^/]+/rep\d+",


def scale_resource(name, default):
    return PROJECT.scale.get("resources", {}).get(name, default)


def settings(run):
    """All settings of the run with a path."""
    return PROJECT.run(run).settings


def training_memory(run):
    """MB for a training: what the scale says, and what its method needs for that many structures."""
    return scale_resource("mem_mb", 4000) + memory_mb(settings(run))


def run_files(names, file):
    """A file of every run that the given experiments need."""
    runs = dict.fromkeys(run.path for name in names for run in PROJECT.runs_of(name))
    return [f"{RESULTS}/runs/{run}/{file}" for run in runs]


def run_inputs(wildcards):
    """Data, split and neighbour lists of a run.

    The digest is a reason to compute again, the data are not: made a second time they are the same.
    Splits and neighbour lists are no `ancient` files: Snakemake (9.27) looks for no other reason,
    not even for missing outputs, where all that a job waits for is made again and ancient.
    """
    s = settings(wildcards.run)
    files = {
        "data": ancient(s.data),
        "digest": f"{DATA}/{s.dataset}.digest",
        "split": s.split,
    }
    if s.neighbours:
        files["neighbours"] = s.neighbours
    return files


def neighbours_option(input):
    return ["--neighbours", input.neighbours] if "neighbours" in input.keys() else []


def generate_options(wildcards):
    return json.dumps(PROJECT.family(wildcards.dataset).get("generate", {}))


def fetch_options(wildcards):
    live = PROJECT.config["materials_project"] == "live"
    if wildcards.dataset == "materials_project" and live:
        return ["--live"]
    mirror = PROJECT.config["mirror"]
    return ["--mirror", mirror] if mirror else []


def reference_workers(wildcards):
    """Processes that share the making of a data set, where it can be shared."""
    return 2 if PROJECT.sources[wildcards.dataset]["reference"] in PARALLEL else 1


def raw_manifest(wildcards):
    derived = "derived_from" in PROJECT.sources[wildcards.dataset] and not MADE
    folder = "distilled/" if derived else ""
    return f"{DATA}/raw/{wildcards.dataset}/{folder}sources.json"


def approximate_option():
    names = PROJECT.scale.get("approximate", [])
    return ["--approximate", ",".join(names)] if names else []


def split_options(wildcards):
    s = PROJECT.splits[f"{wildcards.dataset}/{wildcards.split}.npz"]
    return (
        f"--n-train {s.n_train} --n-validation {s.n_validation} "
        f"--seed {s.split_seed} --strategy {s.split_strategy}"
    )


def published(wildcards):
    file = PROJECT.experiments[wildcards.table].get("published")
    return [f"workflow/published/{file}"] if file else []


def committee_predictions(wildcards):
    """Predictions of the members of a table's committees."""
    cells = (c for c in PROJECT.cells[wildcards.table] if c.committee == "mean")
    runs = (run for cell in cells for run in cell.runs)
    return list(dict.fromkeys(str(run.predictions_file) for run in runs))


def figure_inputs(wildcards):
    """What a figure is drawn from; history.csv is written together with run.yaml."""
    files = [str(f) for f in figures.files_read(PROJECT, wildcards.figure)]
    return [f.replace("history.csv", "run.yaml") for f in files]


def simulated_structure(wildcards):
    return str(PROJECT.simulation(wildcards.simulation).structure)


def simulated_models(wildcards):
    return PROJECT.simulation(wildcards.simulation).model_files


def relaxed_job(wildcards):
    """Any of the jobs that start from a relaxed structure."""
    folder = f"{RESULTS}/simulations/{wildcards.relaxed}"
    jobs = (job for jobs in PROJECT.simulations.values() for job in jobs)
    return next(job for job in jobs if str(job.relaxed) == folder)


def relaxed_structure(wildcards):
    return str(relaxed_job(wildcards).structure)


def relaxed_models(wildcards):
    return relaxed_job(wildcards).model_files


def compared_models(simulation):
    """The reference, and the others as options."""
    reference, *others = PROJECT.simulation(simulation).models
    compared = [text for other in others for text in ("--compare", other.model)]
    return [reference.model, *compared]
