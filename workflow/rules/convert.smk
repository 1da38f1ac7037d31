# One HDF5 layout for all data sets.


rule convert:
    input:
        raw_manifest,
    output:
        data=f"{DATA}/{{dataset}}.h5",
        # what decides whether a run is still the same: the content, not the file's time stamp
        digest=f"{DATA}/{{dataset}}.digest",
    log:
        f"{DATA}/logs/convert_{{dataset}}.log",
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w: min(240, scale_resource("runtime", 240)),
    params:
        folder=lambda w, input: os.path.dirname(input[0]),
        approximate=approximate_option(),
    shell:
        "schnet data convert {wildcards.dataset} {params.folder:q} {output.data:q} "
        "{params.approximate:q} --digest {output.digest:q} > {log:q} 2>&1"
