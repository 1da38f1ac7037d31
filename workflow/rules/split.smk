# Seeded splits; a split file knows the digest of its data.


rule split:
    input:
        f"{DATA}/{{dataset}}.h5",
    output:
        f"{RESULTS}/splits/{{dataset}}/{{split}}.npz",
    log:
        f"{RESULTS}/logs/split_{{dataset}}_{{split}}.log",
    localrule: True
    params:
        options=lambda w: "--n-train {n_train} --n-validation {n_validation} --seed {seed} --strategy {strategy}".format(
            **split_of(w)
        ),
    shell:
        "schnet split {input} {output} {params.options} > {log} 2>&1"
