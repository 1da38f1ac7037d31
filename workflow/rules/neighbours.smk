# Neighbour lists within a model's cutoff, derived from a converted data set.


rule neighbours:
    input:
        data=ancient(f"{DATA}/{{dataset}}.h5"),
        digest=f"{DATA}/{{dataset}}.digest",
    output:
        f"{DATA}/neighbours/{{dataset}}-{{cutoff}}.h5",
    log:
        f"{DATA}/logs/neighbours_{{dataset}}-{{cutoff}}.log",
    wildcard_constraints:
        cutoff=r"[0-9.e+-]+",
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w: min(120, scale_resource("runtime", 120)),
    shell:
        "schnet data neighbours {input.data:q} {output:q} --cutoff {wildcards.cutoff} "
        "> {log:q} 2>&1"
