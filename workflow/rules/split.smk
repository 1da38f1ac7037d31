# Seeded splits; a split file knows the digest of its data.


rule split:
    input:
        data=ancient(f"{DATA}/{{dataset}}.h5"),
        digest=f"{DATA}/{{dataset}}.digest",
    output:
        f"{RESULTS}/splits/{{dataset}}/{{split}}.npz",
    log:
        f"{RESULTS}/logs/split/{{dataset}}/{{split}}.log",
    localrule: True
    params:
        options=split_options,
    shell:
        "schnet split {input.data:q} {output:q} {params.options} > {log:q} 2>&1"
