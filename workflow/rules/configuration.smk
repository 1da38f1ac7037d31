# The complete configuration, which tables and figures read.


rule resolve:
    output:
        RESOLVED,
    log:
        f"{RESULTS}/logs/resolve.log",
    localrule: True
    params:
        config=json.dumps(PROJECT.config, sort_keys=True),
    shell:
        "schnet resolve --config {params.config:q} {output} 2> {log}"
