# What a run over SLURM needs beside slurm/config.yaml; nothing without it.
import logging
import shutil
import threading
import time
from pathlib import Path

BEGIN = time.time()
# Here and not in a job: `jobs`, which every cluster profile has, is known.
SUBMITS = workflow.resource_settings.nodes is not None


def several_runs(wildcards):
    """The group of a run: as many share one job as the scale says.

    The profile's group-components go first. They are not known yet when this file is read. Members
    of a job ask for the same, so those that use no GPU have jobs of their own.
    """
    group = "runs" if gres(wildcards) == GRES else "runs_without_gpu"
    known = workflow.group_settings.group_components
    if group not in known:
        count = known.get("runs", scale_resource("runs_per_job", 1))
        workflow.group_settings.group_components = {**known, group: count}
    return group


RUNS_GROUP = several_runs if SUBMITS else None
# A group's cores are those of its members (cpus_per_task); threads would be capped by --cores here.
RUN_THREADS = 0 if SUBMITS else THREADS
# A job that is repeated repeats all its members: a finished training comes back from its checkpoint.
KEEP_CHECKPOINT = "" if workflow.exec_mode.name == "DEFAULT" else "--keep-checkpoint"
if SUBMITS:
    # SLURM's commands with better manners: slurm/bin/slurm_commands.py says which
    REFUSED = Path(".snakemake/slurm_jobs/refused").absolute()
    MESSAGES = REFUSED.with_name("messages")
    os.environ.update(
        PATH=os.pathsep.join(
            [f"{workflow.basedir}/slurm/bin", os.environ.get("PATH", "")]
        ),
        # what they say themselves, Snakemake would keep to itself
        SCHNET_MESSAGES=str(MESSAGES),
        # inside a job the executor removes SLURM's own variables
        SCHNET_SLURM_CONF=os.environ.get("SLURM_CONF", ""),
    )
    REFUSED.unlink(missing_ok=True)
    MESSAGES.unlink(missing_ok=True)

    def pass_messages_on():
        """Print what slurm/bin has to say; no more jobs once SLURM has refused one for good."""
        shown, ending = 0, False
        while True:
            text = MESSAGES.read_text() if MESSAGES.exists() else ""
            print(text[shown:], end="", file=sys.stderr, flush=True)
            shown = len(text)
            if REFUSED.exists() and not ending:
                ending = True
                logging.disable(logging.ERROR)  # no page about each job that is left
                workflow.scheduler.exit_gracefully()
            time.sleep(1)

    threading.Thread(target=pass_messages_on, daemon=True).start()

if workflow.exec_mode.name == "REMOTE":
    # a job: the logs of earlier attempts stay, as NAME.log.1, NAME.log.2 and so on
    for target in sys.argv:
        rule_name, is_run, run = target.partition(":run=")
        log_file = Path(f"{RESULTS}/logs/{rule_name}/{run}.log")
        if is_run and log_file.exists():
            number = len(list(log_file.parent.glob(f"{log_file.name}.*"))) + 1
            log_file.rename(f"{log_file}.{number}")


def last_line(path):
    """The last line of a text file, empty where there is none."""
    lines = path.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


onstart:
    # one process imports PyTorch for all jobs of this machine; jobs on others import it themselves
    if not SUBMITS:
        start()


onsuccess:
    shutil.rmtree(".snakemake/slurm_jobs", ignore_errors=True)
    for run in PROJECT.runs:
        checkpoint = Path(f"{RESULTS}/runs/{run}/checkpoint.pt")
        metrics = checkpoint.with_name("metrics.json")
        if checkpoint.exists() and metrics.exists():
            if checkpoint.stat().st_mtime <= metrics.stat().st_mtime:
                checkpoint.unlink()


onerror:
    # one sentence for everything that failed by itself; what was killed says nothing
    for path in sorted(Path(RESULTS).parent.glob("*/logs/**/*.log")):
        if path.stat().st_mtime >= BEGIN and "error: " in (line := last_line(path)):
            print(f"{path}: {line}", file=sys.stderr)
