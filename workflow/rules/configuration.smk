# The configuration that decides results, which tables and figures read.


rule resolve:
    output:
        RESOLVED,
    log:
        f"{RESULTS}/logs/resolve.log",
    localrule: True
    params:
        config=json.dumps(
            {k: v for k, v in PROJECT.config.items() if k not in EXECUTION_CONFIG},
            sort_keys=True,
        ),
    shell:
        "schnet resolve --config {params.config:q} {output:q} 2> {log:q}"
