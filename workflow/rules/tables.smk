# Tables from metrics of their runs, predictions of committees and workflow/published alone.


rule table:
    input:
        config=RESOLVED,
        experiment="workflow/experiments/{table}.yaml",
        published=published,
        metrics=lambda w: run_files([w.table], "metrics.json"),
        predictions=committee_predictions,
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        json=f"{RESULTS}/tables/{{table}}.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{RESULTS}/logs/tables/{{table}}.log",
    wildcard_constraints:
        table="|".join(map(re.escape, TABLES)),
    localrule: True
    params:
        stem=lambda w: f"{RESULTS}/tables/{w.table}",
    shell:
        "schnet table {wildcards.table:q} --config {input.config:q} --output {params.stem:q} "
        "> {log:q} 2>&1"


for name in TABLES:

    rule:
        name:
            name
        input:
            f"{RESULTS}/tables/{name}.md",
        localrule: True


rule architectures:
    # what the models are made of: no data, no runs
    output:
        md=f"{RESULTS}/tables/architectures.md",
        html=f"{RESULTS}/tables/architectures.html",
    log:
        f"{RESULTS}/logs/tables/architectures.log",
    localrule: True
    params:
        stem=lambda w: f"{RESULTS}/tables/architectures",
        # written again when a model changes
        models=provenance.code()["models"],
    shell:
        "schnet models --architectures --output {params.stem:q} > {log:q} 2>&1"
