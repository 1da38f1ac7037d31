# Upstream files: downloaded (or made, at the demo scale), verified and listed in sources.json.


def is_made(dataset):
    """Whether the raw files are made here instead of fetched."""
    return PROJECT.scale["data"] == "reference"


def fetch_command(wildcards):
    source = PROJECT.sources[wildcards.dataset]
    folder = f"{DATA}/raw/{wildcards.dataset}"
    if is_made(wildcards.dataset):
        options = json.dumps(
            PROJECT.scale["families"][family(wildcards.dataset)].get("generate", {})
        )
        return f"reference {wildcards.dataset} {folder} --options '{options}'"
    command = f"data fetch {wildcards.dataset} {folder}"
    if (
        wildcards.dataset == "materials_project"
        and PROJECT.config["materials_project"] == "live"
    ):
        return command + " --live"
    return command + (
        f" --mirror '{PROJECT.config['mirror']}'" if PROJECT.config["mirror"] else ""
    )


def family(dataset):
    from schnet.project import family_of

    return family_of(dataset, PROJECT.scale)


rule fetch:
    output:
        f"{DATA}/raw/{{dataset}}/sources.json",
    log:
        f"{DATA}/logs/fetch_{{dataset}}.log",
    localrule: True
    threads: lambda wildcards: workflow.cores if is_made(wildcards.dataset) else 1
    params:
        command=fetch_command,
    shell:
        "OMP_NUM_THREADS=1 schnet {params.command} 2> >(tee {log} >&2)"


rule distil:
    # trajectories driven by a released model stand in for data that were not published
    input:
        f"{DATA}/raw/{{dataset}}/sources.json",
    output:
        f"{DATA}/raw/{{dataset}}/distilled/sources.json",
    log:
        f"{DATA}/logs/distil_{{dataset}}.log",
    localrule: True
    threads: workflow.cores or 1
    params:
        options=lambda w: json.dumps(
            PROJECT.scale["families"][family(w.dataset)].get("generate", {})
        ),
        folder=lambda w: f"{DATA}/raw/{w.dataset}",
        model=lambda w: PROJECT.sources[w.dataset]["derived_from"],
    shell:
        "(schnet import-tf {params.folder}/{params.model} {params.folder}/{params.model}.pt && "
        "schnet reference {wildcards.dataset} {params.folder}/distilled --workers {threads} "
        "--options {params.options:q} --model {params.folder}/{params.model}.pt) > {log} 2>&1"
