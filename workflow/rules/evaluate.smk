# Every test prediction is kept, so tables and histograms need no model again.


rule evaluate:
    input:
        unpack(run_inputs),
        model=f"{RESULTS}/runs/{{run}}/model.pt",
        about=f"{RESULTS}/runs/{{run}}/run.yaml",
    output:
        metrics=update(f"{RESULTS}/runs/{{run}}/metrics.json"),
        predictions=update(f"{RESULTS}/runs/{{run}}/predictions.h5"),
    log:
        f"{RESULTS}/logs/evaluate/{{run}}.log",
    group:
        RUNS_GROUP
    threads: RUN_THREADS
    resources:
        gres=gres,
        cpus_per_task=THREADS,
        mem_mb=lambda w, attempt: scale_resource("mem_mb", 4000) * attempt,
        runtime=lambda w: min(120, scale_resource("runtime", 120)),
        device=DEVICE,
        engine=ENGINE,
        computing_threads=THREADS,
        keep=KEEP_CHECKPOINT,
    params:
        folder=lambda w: f"{RESULTS}/runs/{w.run}",
        neighbours=lambda w, input: neighbours_option(input),
    shell:
        "OMP_NUM_THREADS={resources.computing_threads} schnet evaluate {params.folder:q} "
        "--data {input.data:q} --split {input.split:q} {params.neighbours:q} "
        "--threads {resources.computing_threads} --device {resources.device} "
        "--engine {resources.engine} {resources.keep} > {log:q} 2>&1"
