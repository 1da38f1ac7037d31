# Upstream files: downloaded (or made, at the demo scale), verified and listed in sources.json.


if MADE:

    rule reference:
        # the demo's raw files, made with GFN2-xTB and EMT in the upstream formats
        output:
            f"{DATA}/raw/{{dataset}}/sources.json",
        log:
            f"{DATA}/logs/reference_{{dataset}}.log",
        # first: the longest chains of jobs begin here
        priority: 1
        threads: reference_workers
        resources:
            mem_mb=lambda w, attempt: 2000 * attempt,
            runtime=30,
            cpus_per_task=reference_workers,
        params:
            folder=lambda w: f"{DATA}/raw/{w.dataset}",
            options=generate_options,
        shell:
            "OMP_NUM_THREADS=1 schnet reference {wildcards.dataset} {params.folder:q} --workers {threads} "
            "--options {params.options:q} > {log:q} 2>&1"

else:

    rule fetch:
        # runs where snakemake runs: compute nodes may have no internet
        output:
            f"{DATA}/raw/{{dataset}}/sources.json",
        log:
            f"{DATA}/logs/fetch_{{dataset}}.log",
        localrule: True
        params:
            folder=lambda w: f"{DATA}/raw/{w.dataset}",
            options=fetch_options,
        shell:
            "schnet data fetch {wildcards.dataset} {params.folder:q} {params.options:q} "
            "2> >(tee {log:q} >&2)"


rule distil:
    # trajectories driven by a released model stand in for data that were not published
    input:
        f"{DATA}/raw/{{dataset}}/sources.json",
    output:
        f"{DATA}/raw/{{dataset}}/distilled/sources.json",
    log:
        f"{DATA}/logs/distil_{{dataset}}.log",
    threads: 2
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=120,
        cpus_per_task=2,
    params:
        options=generate_options,
        folder=lambda w: f"{DATA}/raw/{w.dataset}",
        model=lambda w: PROJECT.sources[w.dataset]["derived_from"],
    shell:
        "(schnet import-tf {params.folder:q}/{params.model} {params.folder:q}/{params.model}.pt && "
        "OMP_NUM_THREADS=1 schnet reference {wildcards.dataset} {params.folder:q}/distilled --workers 2 "
        "--options {params.options:q} --model {params.folder:q}/{params.model}.pt) > {log:q} 2>&1"
