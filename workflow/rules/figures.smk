# Figures, one per file in workflow/figures, each with its data as CSV.


rule figure:
    input:
        config=RESOLVED,
        results=figure_inputs,
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
        f"{RESULTS}/logs/figures/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(re.escape(f) for f in PROJECT.figures if f not in INTERACTIVE)
        or "none",
    localrule: True
    params:
        # drawn again when its declaration changes
        declaration=lambda w: json.dumps(PROJECT.figures[w.figure], sort_keys=True),
        caption=lambda w: figures.caption(PROJECT, w.figure),
    shell:
        "schnet figure {wildcards.figure:q} --config {input.config:q} --output {output.png:q} "
        "> {log:q} 2>&1"


use rule figure as interactive_figure with:
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        html=f"{RESULTS}/figures/{{figure}}.html",
    wildcard_constraints:
        figure="|".join(map(re.escape, INTERACTIVE)) or "none",


for name in PROJECT.figures:

    rule:
        name:
            name
        input:
            f"{RESULTS}/figures/{name}.png",
        localrule: True
