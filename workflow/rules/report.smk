# Tables, figures, captions, provenance and cost of every run on one page.


rule report:
    input:
        config=RESOLVED,
        tables=expand(f"{RESULTS}/tables/{{table}}.json", table=TABLES),
        architectures=f"{RESULTS}/tables/architectures.md",
        figures=expand(f"{RESULTS}/figures/{{figure}}.png", figure=PROJECT.figures),
    output:
        report(
            f"{RESULTS}/report.html", caption="../report/report.rst", category="Report"
        ),
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    shell:
        "schnet report {output:q} --config {input.config:q} > {log:q} 2>&1"
