"""`schnet VERB …`: every arrow of the workflow as a command a person can type."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import sys
from pathlib import Path

from schnet import __version__
from schnet.errors import ConfigError, SchNetError


def _project(args):
    from schnet.files import read_json
    from schnet.project import load_config, load_project

    if getattr(args, "config", None):
        text = args.config
        values = read_json(text) if text.endswith(".json") else {**load_config(), **json.loads(text)}
        return load_project(values)
    values = load_config()
    if getattr(args, "scale", None):
        values["scale"] = args.scale
    if getattr(args, "mirror", None):
        values["mirror"] = args.mirror
    return load_project(values)


def _source(name: str):
    from difflib import get_close_matches

    from schnet.project import load_sources

    sources = load_sources()
    if name not in sources:
        near = get_close_matches(name, sources, 1)
        raise ConfigError(f"no data set {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sources)}"))
    return sources[name]


# ---- data ------------------------------------------------------------------------------------
def data_fetch(args):
    from schnet.data.fetch import fetch
    from schnet.data.materials_project import fetch_live
    from schnet.files import write_json

    source = _source(args.dataset)
    if args.live:
        if args.dataset != "materials_project":
            raise ConfigError("--live: only materials_project has a live database")
        fetch_live(args.folder, progress=sys.stderr.isatty())
        from schnet.files import read_json

        records = [read_json(Path(args.folder) / "materials_project_live.jsonl.source.json")]
    else:
        records = fetch(args.dataset, source, args.folder, mirror=args.mirror, progress=sys.stderr.isatty())
    write_json(Path(args.folder) / "sources.json", records)


def data_convert(args):
    from schnet.files import read_json

    source = _source(args.dataset)
    module = importlib.import_module(source["module"])
    manifest = Path(args.folder) / "sources.json"
    about = {
        "title": source["title"],
        "licence": source["licence"],
        "citation": source["citation"],
        "sources": read_json(manifest) if manifest.exists() else [],
    }
    options = {"cutoff": args.cutoff or source.get("cutoff")} if "cutoff" in source else {}
    approximate = args.approximate.split(",") if args.approximate else ()
    notes = module.convert(args.folder, args.output, name=args.dataset, about=about, approximate=approximate, **options)
    for what, value in notes.items():
        print(f"{what}: {value}")


def data_describe(args):
    from schnet.data.describe import describe

    describe(args.file, args.output)


def data_show(args):
    from schnet.data.describe import show

    show(args.file, args.index, args.output)


def split(args):
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Store

    store = Store(args.data)
    parts = make_split(store, n_train=args.n_train, n_validation=args.n_validation, seed=args.seed, strategy=args.strategy)
    save_split(args.output, store, parts, strategy=args.strategy, seed=args.seed)
    print(", ".join(f"{name}: {len(v):,}" for name, v in parts.items()))


# ---- models ----------------------------------------------------------------------------------
def train(args):
    from schnet.files import read_yaml
    from schnet.together import announced, train_together
    from schnet.training.loop import train
    from schnet.training.spec import make_spec

    if args.run.lstrip().startswith("{"):
        values, where = json.loads(args.run), "run"
    else:
        values, where = read_yaml(args.run), args.run
        if not isinstance(values, dict):
            raise ConfigError(f"{args.run}: a mapping with the settings of a run is expected")
        values = values.get("run", values)
    from schnet.schema import validate

    validate(values, "run", where)
    out = args.output or (str(Path(args.run).parent) if where != "run" else None)
    if out is None:
        raise ConfigError("--output is needed when the run is given inline")
    spec = make_spec(values, where)
    members = announced()
    if out in members:
        sys.exit(train_together(members, out, threads=args.threads, device=args.device))
    gc.freeze()  # what is loaded by now is no garbage: the collector would look through it again and again
    train(spec, out, threads=args.threads, device=args.device)


def evaluate(args):
    from schnet.evaluation import evaluate

    for run in args.run:
        metrics = evaluate(run, threads=args.threads, device=args.device, engine=args.engine)
        for part, values in metrics["parts"].items():
            print(f"{run} {part}: " + ", ".join(f"{q} MAE {v['mae']:.4g} {v['unit']}" for q, v in values.items()))


def predict(args):
    from schnet.predict import predict_file

    predict_file(args.model, args.structures, args.output, threads=args.threads, device=args.device)


def import_tf(args):
    from schnet.models import save_model
    from schnet.models.tf_import import import_tf

    model, arguments = import_tf(args.folder)
    save_model(
        args.output,
        model,
        target="energy",
        unit="kcal/mol",
        force_unit="kcal/mol/Å",
        provenance={"released model": Path(args.folder).name, "arguments": repr(arguments)},
    )
    p = model.hyperparameters
    print(f"{args.output}: T={p.n_interactions}, F={p.n_features}, trained with rho={arguments.get('eweight')}")


# ---- reference data --------------------------------------------------------------------------
def reference(args):
    from schnet.files import write_json
    from schnet.reference import generate

    options = json.loads(args.options) if args.options else {}
    source = _source(args.dataset)
    records = generate(args.dataset, source["reference"], args.folder, workers=args.workers, model=args.model, **options)
    write_json(Path(args.folder) / "sources.json", records)


# ---- results ---------------------------------------------------------------------------------
def resolve(args):
    """Write the resolved configuration, only when it changed."""
    from schnet.files import write_text

    project = _project(args)
    text = json.dumps(project.config, indent=2, ensure_ascii=False) + "\n"
    path = Path(args.output)
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def table(args):
    from schnet.tables import render

    render(_project(args), args.name, args.output)


def figure(args):
    from schnet.figures import render

    render(_project(args), args.name, args.output)


def report(args):
    from schnet.report import render

    render(_project(args), args.output)


def compare(args):
    from schnet.compare import compare

    compare(args.committed, args.regenerated, args.tolerance)


def plan(args):
    from schnet.plan import show

    show(_project(args), measured=args.measure, threads=args.threads, device=args.device)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="schnet", description="SchNet: data, training, evaluation, tables and figures.")
    main.add_argument("--version", action="version", version=f"schnet {__version__}")
    main.add_argument("-v", "--verbose", action="store_true", help="show the full traceback of an error")
    verbs = main.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(parent, name, function, help):
        p = parent.add_parser(name, help=help, description=help)
        p.set_defaults(function=function)
        return p

    def compute(p):
        p.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
        p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))

    data = verbs.add_parser("data", help="fetch, convert, describe and show data sets").add_subparsers(
        dest="data_verb", required=True, metavar="VERB"
    )
    p = verb(data, "fetch", data_fetch, "download and verify the upstream files of a data set")
    p.add_argument("dataset")
    p.add_argument("folder", help="where the upstream files go")
    p.add_argument("--mirror", help="folder or URL prefix instead of the internet")
    p.add_argument("--live", action="store_true", help="materials_project: query the live database (MP_API_KEY)")
    p = verb(data, "convert", data_convert, "convert upstream files to the HDF5 layout")
    p.add_argument("dataset")
    p.add_argument("folder", help="the upstream files")
    p.add_argument("output", help="HDF5 file to write")
    p.add_argument("--cutoff", type=float, help="neighbour lists within this distance in Å (crystals)")
    p.add_argument("--approximate", help="comma-separated properties that are approximations")
    p = verb(data, "describe", data_describe, "counts, elements, ranges and distributions of a converted data set")
    p.add_argument("file")
    p.add_argument("-o", "--output", help="also draw the distributions into this picture")
    p = verb(data, "show", data_show, "draw one structure in 3-D, with its forces")
    p.add_argument("file")
    p.add_argument("index", type=int)
    p.add_argument("-o", "--output", required=True, help="picture to write (png, pdf, svg)")

    p = verb(verbs, "split", split, "split a converted data set")
    p.add_argument("data")
    p.add_argument("output", help="split file to write (.npz)")
    p.add_argument("--n-train", type=int, required=True)
    p.add_argument("--n-validation", type=int, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--strategy", default="random", choices=("random", "by_group", "predefined"))

    p = verb(verbs, "train", train, "train one model; continues by itself after an interruption")
    p.add_argument("run", help="run file (YAML), or its content as JSON")
    p.add_argument("-o", "--output", help="run directory (default: that of the run file)")
    compute(p)
    p = verb(verbs, "evaluate", evaluate, "predict validation and test structures of trained runs")
    p.add_argument("run", nargs="+", help="run directory")
    p.add_argument("--engine", default="auto", choices=("auto", "native", "reference"))
    compute(p)
    p = verb(verbs, "predict", predict, "predict structures of any file ASE reads")
    p.add_argument("model")
    p.add_argument("structures")
    p.add_argument("-o", "--output", required=True, help="extended xyz file with the predictions")
    compute(p)
    p = verb(verbs, "import-tf", import_tf, "turn a released TensorFlow checkpoint folder into a model file")
    p.add_argument("folder", help="folder with args.npy and validation/best_model.*")
    p.add_argument("output")

    p = verb(verbs, "reference", reference, "make a data set's raw files with real calculators")
    p.add_argument("dataset")
    p.add_argument("folder")
    p.add_argument("--options", help="JSON: how much to make (see the scale files)")
    p.add_argument("--workers", type=int, default=os.cpu_count())
    p.add_argument("--model", help="c20: drive the trajectories with this model file")

    def configured(p):
        p.add_argument("--config", help="resolved configuration (.json), or JSON on top of config.yaml")
        p.add_argument("--scale", help="scale instead of that of config.yaml")
        p.add_argument("--mirror", help=argparse.SUPPRESS)

    p = verb(verbs, "resolve", resolve, "write the complete configuration")
    configured(p)
    p.add_argument("output")
    p = verb(verbs, "table", table, "render one table from the metrics of its runs")
    p.add_argument("name")
    p.add_argument("-o", "--output", required=True, help="path without suffix; .csv, .md, .tex, .json are written")
    configured(p)
    p = verb(verbs, "figure", figure, "draw one figure from results")
    p.add_argument("name")
    p.add_argument("-o", "--output", required=True, help="picture to write (png); .pdf and .csv are written beside it")
    configured(p)
    p = verb(verbs, "report", report, "one HTML page with all tables, figures, runs and their cost")
    p.add_argument("output")
    configured(p)
    p = verb(verbs, "compare", compare, "check regenerated tables against committed ones")
    p.add_argument("committed", help="folder with table_*.csv")
    p.add_argument("regenerated")
    p.add_argument("--tolerance", type=float, default=2.0, help="largest factor between two values (default: 2)")
    p = verb(verbs, "plan", plan, "runs, steps, time and disk per table, before anything is started")
    configured(p)
    p.add_argument("--measure", action="store_true", help="time every kind of run on this machine that no finished run tells of")
    compute(p)
    return main


def main(argv=None) -> int:
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    if getattr(args, "device", None) == "auto":
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        args.function(args)
        return 0
    except BrokenPipeError:  # `schnet … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SchNetError, OSError) as error:
        if args.verbose:
            raise
        print(f"schnet: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
