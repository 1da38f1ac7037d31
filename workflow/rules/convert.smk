# One HDF5 layout for all data sets.


rule convert:
    input:
        raw_manifest,
    output:
        f"{DATA}/{{dataset}}.h5",
    log:
        f"{DATA}/logs/convert_{{dataset}}.log",
    resources:
        mem_mb=2000,
        runtime=lambda w: min(240, scale_resource("runtime", 240)),
    params:
        folder=lambda w, input: os.path.dirname(input[0]),
        approximate=lambda w: (
            "--approximate " + ",".join(PROJECT.scale["approximate"])
            if PROJECT.scale.get("approximate")
            else ""
        ),
    shell:
        "schnet data convert {wildcards.dataset} {params.folder} {output} {params.approximate} > {log} 2>&1"
