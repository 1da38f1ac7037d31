# Every test prediction is kept, so tables and histograms need no model again.


rule evaluate:
    input:
        [f"{RESULTS}/runs/{{run}}/{name}" for name in RUN_FILES],
        data=lambda w: PROJECT.runs[w.run]["data"],
        split=lambda w: PROJECT.runs[w.run]["split"],
    output:
        f"{RESULTS}/runs/{{run}}/metrics.json",
        f"{RESULTS}/runs/{{run}}/predictions.h5",
    log:
        f"{RESULTS}/logs/evaluate/{{run}}.log",
    threads: TRAINING_THREADS
    resources:
        gres=TRAINING_GRES,
        cpus_per_task=TRAINING_THREADS,  # --cores does not cap it
        mem_mb=lambda w, attempt: scale_resource("mem_mb", 4000) * attempt,
        runtime=lambda w: min(120, scale_resource("runtime", 120)),
    params:
        folder=lambda w: f"{RESULTS}/runs/{w.run}",
        device=TRAINING_DEVICE,
        threads=TRAINING_THREADS,
    shell:
        "OMP_NUM_THREADS={params.threads} schnet evaluate {params.folder} --threads {params.threads} --device {params.device} > {log} 2>&1"
