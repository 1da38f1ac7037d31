# Figures, each with its data as CSV.
FIGURE_INPUT = {
    "figure_3": lambda w: rendered_runs(["figure_3"]),
    "figure_4": lambda w: [
        f"{RESULTS}/runs/{run}/model.pt" for run in PROJECT.runs_of("table_2")
    ],
    "figure_9": lambda w: [
        m.replace("metrics.json", "predictions.h5") for m in rendered_runs(["table_1"])
    ],
    "figure_10": lambda w: [
        m.replace("metrics.json", "predictions.h5") for m in rendered_runs(["table_2"])
    ],
    "training_curves": lambda w: rendered_runs(PROJECT.experiments),
    "predicted_true": lambda w: [
        m.replace("metrics.json", "predictions.h5")
        for m in rendered_runs(PROJECT.experiments)
    ],
}


rule figure:
    input:
        config=RESOLVED,
        results=lambda w: FIGURE_INPUT[w.figure](w),
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
