# Simulations with trained models (workflow/simulations). A job that was cut off continues by itself.


rule structure:
    input:
        data=ancient(f"{DATA}/{{dataset}}.h5"),
        digest=f"{DATA}/{{dataset}}.digest",
    output:
        f"{DATA}/structures/{{dataset}}.extxyz",
    log:
        f"{DATA}/logs/structure_{{dataset}}.log",
    localrule: True
    shell:
        "schnet data export {input.data:q} 0 {output:q} 2> {log:q}"


rule released:
    input:
        f"{DATA}/raw/{{dataset}}/sources.json",
    output:
        f"{DATA}/released/{{dataset}}/{{model}}.pt",
    log:
        f"{DATA}/logs/released_{{dataset}}_{{model}}.log",
    localrule: True
    params:
        folder=lambda w: f"{DATA}/raw/{w.dataset}/{w.model}",
    shell:
        "schnet import-tf {params.folder:q} {output:q} > {log:q} 2>&1"


rule modes:
    input:
        structure=simulated_structure,
        models=simulated_models,
    output:
        f"{RESULTS}/simulations/{{simulation}}/modes.npz",
    log:
        f"{RESULTS}/logs/simulations/{{simulation}}.log",
    wildcard_constraints:
        simulation="[a-z0-9_]+/modes-[0-9a-f]{6}",
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w: PROJECT.simulation(w.simulation).runtime,
    params:
        models=lambda w: compared_models(w.simulation),
        options=lambda w: PROJECT.simulation(w.simulation).options(),
        folder=lambda w: f"{RESULTS}/simulations/{w.simulation}",
    shell:
        "schnet modes {input.structure:q} {params.models:q} {params.options:q} "
        "--output {params.folder:q} --device cpu > {log:q} 2>&1"


rule relax:
    input:
        structure=relaxed_structure,
        models=relaxed_models,
    output:
        f"{RESULTS}/simulations/{{relaxed}}/relaxed.extxyz",
    log:
        f"{RESULTS}/logs/simulations/{{relaxed}}.log",
    wildcard_constraints:
        relaxed="[a-z0-9_]+/relaxed-[0-9a-f]{6}",
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=30,
    params:
        folder=lambda w: f"{RESULTS}/simulations/{w.relaxed}",
    shell:
        "schnet relax {input.structure:q} {input.models:q} --output {params.folder:q} --device cpu "
        "> {log:q} 2>&1"


rule pimd:
    input:
        structure=lambda w: f"{PROJECT.simulation(w.simulation).relaxed}/relaxed.extxyz",
        models=simulated_models,
    output:
        update(f"{RESULTS}/simulations/{{simulation}}/trajectory.h5"),
    log:
        f"{RESULTS}/logs/simulations/{{simulation}}.log",
    wildcard_constraints:
        simulation="[a-z0-9_]+/P[0-9]+-[0-9a-f]{6}",
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w: PROJECT.simulation(w.simulation).runtime,
    params:
        options=lambda w: PROJECT.simulation(w.simulation).options(),
        folder=lambda w: f"{RESULTS}/simulations/{w.simulation}",
    shell:
        "schnet pimd {input.structure:q} {input.models:q} {params.options:q} "
        "--output {params.folder:q} --device cpu > {log:q} 2>&1"


for name, jobs in PROJECT.simulations.items():

    rule:
        name:
            name
        input:
            [str(job.result) for job in jobs],
        localrule: True
