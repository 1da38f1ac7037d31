# Figures, each with its data as CSV.
FIGURE_RUNS = {
    "figure_3": ["figure_3"],
    "figure_4": ["table_2"],
    "figure_9": ["table_1"],
    "figure_10": ["table_2"],
    "training_curves": list(PROJECT.experiments),
    "predicted_true": list(PROJECT.experiments),
}
FIGURE_FILE = {
    "figure_3": "metrics.json",
    "figure_4": "model.pt",
    "training_curves": "history.csv",
}


def figure_input(name):
    file = FIGURE_FILE.get(name, "predictions.h5")
    return [m.replace("metrics.json", file) for m in rendered_runs(FIGURE_RUNS[name])]


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
