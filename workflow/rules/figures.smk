# Figures, each with its data as CSV.


rule figure:
    input:
        config=RESOLVED,
        results=lambda w: figure_input(w.figure),
        data=lambda w: data_of(FIGURE_RUNS[w.figure]),
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{RESULTS}/logs/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    localrule: True
    shell:
        "schnet figure {wildcards.figure} --config {input.config} --output {output.png} > {log} 2>&1"


for name in FIGURES:

    rule:
        name:
            name
        input:
            f"{RESULTS}/figures/{name}.png",
        localrule: True
