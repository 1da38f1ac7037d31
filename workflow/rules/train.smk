# One run in its directory: a model is fitted, then judged by validation and test structures. Every
# prediction is kept, so tables and histograms need no model again. Checkpoints are no outputs, so a
# failed job keeps them and continues. update(): what a run has stays in place until the new files
# are there.


rule train:
    input:
        unpack(run_inputs),
    output:
        model=update(f"{RESULTS}/runs/{{run}}/model.pt"),
        about=update(f"{RESULTS}/runs/{{run}}/run.yaml"),
        metrics=update(f"{RESULTS}/runs/{{run}}/metrics.json"),
        predictions=update(f"{RESULTS}/runs/{{run}}/predictions.h5"),
    log:
        f"{RESULTS}/logs/train/{{run}}.log",
    group:
        RUNS_GROUP
    threads: RUN_THREADS
    resources:
        gres=gres,
        cpus_per_task=THREADS,
        mem_mb=lambda w, attempt: training_memory(w.run) * attempt,
        # the same for every attempt: each continues where the one before it ended
        runtime=scale_resource("runtime", 240),
        device=DEVICE,
        engine=ENGINE,
        computing_threads=THREADS,
        checkpoint_interval=lambda w: settings(w.run).checkpoint_interval,
        keep=KEEP_CHECKPOINT,
    params:
        run=lambda w: json.dumps(settings(w.run).stated(), sort_keys=True),
        folder=lambda w: f"{RESULTS}/runs/{w.run}",
        neighbours=lambda w, input: neighbours_option(input),
    shell:
        "OMP_NUM_THREADS={resources.computing_threads} schnet train {params.run:q} "
        "--data {input.data:q} --split {input.split:q} {params.neighbours:q} "
        "--output {params.folder:q} --checkpoint-interval {resources.checkpoint_interval} "
        "--threads {resources.computing_threads} --device {resources.device} "
        "--engine {resources.engine} {resources.keep} >> {log:q} 2>&1"
