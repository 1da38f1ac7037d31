# Upstream files: downloaded (or made, at the demo scale), verified and listed in sources.json.

if MADE:

    rule reference:
        # the demo's raw files, made with GFN2-xTB and EMT in the upstream formats
        output:
            f"{DATA}/raw/{{dataset}}/sources.json",
        log:
            f"{DATA}/logs/reference_{{dataset}}.log",
        threads: 2
        resources:
            mem_mb=2000,
            runtime=30,
            cpus_per_task=2,
        params:
            folder=lambda w: f"{DATA}/raw/{w.dataset}",
            options=generate_options,
        shell:
            "schnet reference {wildcards.dataset} {params.folder} --workers 2 --options {params.options:q} > {log} 2>&1"

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
            "schnet data fetch {wildcards.dataset} {params.folder} {params.options} 2> >(tee {log} >&2)"


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
        mem_mb=2000,
        runtime=120,
        cpus_per_task=2,
    params:
        options=generate_options,
        folder=lambda w: f"{DATA}/raw/{w.dataset}",
        model=lambda w: PROJECT.sources[w.dataset]["derived_from"],
    shell:
        "(schnet import-tf {params.folder}/{params.model} {params.folder}/{params.model}.pt && "
        "schnet reference {wildcards.dataset} {params.folder}/distilled --workers 2 "
        "--options {params.options:q} --model {params.folder}/{params.model}.pt) > {log} 2>&1"
