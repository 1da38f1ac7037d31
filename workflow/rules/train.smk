# One training per run directory. Checkpoints are no outputs, so a failed job keeps them and continues.
from schnet.together import announce

# The SLURM executor runs the members of a group job one after another, though it asks for cores and memory for all.
# So the first member trains them all side by side (schnet/together.py); the others find theirs finished.
MEMBERS = []
if "slurm-jobstep" in sys.argv:  # the process of a group; its members are its targets
    target = "train:run="
    MEMBERS = [a.removeprefix(target) for a in sys.argv if a.startswith(target)]
if len(MEMBERS) > 1:
    announce(
        {
            f"{RESULTS}/runs/{r}": [PROJECT.runs[r], f"{RESULTS}/logs/train/{r}.log"]
            for r in MEMBERS
        }
    )


rule train:
    input:
        data=lambda w: PROJECT.runs[w.run]["data"],
        split=lambda w: PROJECT.runs[w.run]["split"],
    output:
        [f"{RESULTS}/runs/{{run}}/{name}" for name in RUN_FILES],
    log:
        f"{RESULTS}/logs/train/{{run}}.log",
    threads: TRAINING_THREADS
    resources:
        gres=TRAINING_GRES,
        cpus_per_task=TRAINING_THREADS * max(1, len(MEMBERS)),  # --cores does not cap it
        mem_mb=lambda w, attempt: scale_resource("mem_mb", 4000) * attempt,
        runtime=lambda w, attempt: scale_resource("runtime", 240) * attempt,
    params:
        run=lambda w: json.dumps(PROJECT.runs[w.run], sort_keys=True),
        folder=lambda w: f"{RESULTS}/runs/{w.run}",
        device=TRAINING_DEVICE,
        threads=TRAINING_THREADS,
    shell:
        "OMP_NUM_THREADS={params.threads} schnet train {params.run:q} --output {params.folder} "
        "--threads {params.threads} --device {params.device} 2>> {log}"
