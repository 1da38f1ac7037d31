"""Verbs that fetch, make, convert and look at data."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from schnet.cli.options import add_verb, at_least_one, mapping, named_source
from schnet.errors import ConfigError


def fetch(args):
    """Download and verify the upstream files of a data set."""
    from schnet.data.fetch import fetch
    from schnet.data.materials_project_live import fetch_live
    from schnet.files import write_json

    source = named_source(args)
    progress = sys.stderr.isatty()
    if args.live:
        if args.dataset != "materials_project":
            raise ConfigError("--live: only materials_project has a live database")
        records = fetch_live(args.folder, progress=progress)
    else:
        records = fetch(args.dataset, source, args.folder, mirror=args.mirror, progress=progress)
    write_json(Path(args.folder) / "sources.json", records)


def convert(args):
    """Convert upstream files to the HDF5 layout."""
    from schnet.data.store import Store
    from schnet.files import read_json, write_text

    source = named_source(args)
    module = importlib.import_module(source["module"])
    manifest = Path(args.folder) / "sources.json"
    about = {key: source[key] for key in ("title", "licence", "citation")}
    about["sources"] = read_json(manifest) if manifest.exists() else []
    options = {"upstream": source}
    if "cutoff" in source:
        options["cutoff"] = args.cutoff or source["cutoff"]
    notes = module.convert(
        args.folder,
        args.output,
        name=args.dataset,
        about=about,
        approximate=args.approximate.split(",") if args.approximate else (),
        **options,
    )
    if args.digest:
        write_text(args.digest, Store(args.output).digest + "\n")
    for what, value in notes.items():
        print(f"{what}: {value}")


def neighbours(args):
    """Neighbour lists of a converted data set within a cutoff."""
    from schnet.data.neighbours import write_neighbours
    from schnet.data.store import Store

    n_pairs = write_neighbours(Store(args.data), args.output, args.cutoff)
    print(f"{args.output}: {n_pairs:,} pairs within {args.cutoff} Å")


def describe(args):
    """Counts, elements, ranges and distributions of a converted data set."""
    from schnet.data.describe import describe

    describe(args.file, args.output)


def show(args):
    """Draw one structure in 3-D, with its forces."""
    from schnet.data.drawing import show

    show(args.file, args.index, args.output)


def export(args):
    """Write structures to a file of any format that ASE writes."""
    from schnet.data.export import export

    export(args.file, args.which, args.output)


def split(args):
    """Split a converted data set."""
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Store

    store = Store(args.data)
    parts = make_split(
        store,
        n_train=args.n_train,
        n_validation=args.n_validation,
        seed=args.seed,
        strategy=args.strategy,
    )
    save_split(args.output, store, parts, strategy=args.strategy, seed=args.seed)
    print(", ".join(f"{name}: {len(v):,}" for name, v in parts.items()))


def reference(args):
    """Make a data set's raw files with real calculators."""
    from schnet.files import write_json
    from schnet.reference import generate

    source = named_source(args)
    if "reference" not in source:
        raise ConfigError(
            f"workflow/sources.yaml: {args.dataset}: no `reference`: it can be fetched, not made"
        )
    options = mapping(args.options, "--options") if args.options else {}
    records = generate(
        args.dataset,
        source["reference"],
        args.folder,
        workers=args.workers,
        model=args.model,
        **options,
    )
    write_json(Path(args.folder) / "sources.json", records)


def add_verbs(verbs):
    """data fetch|convert|neighbours|describe|show|export, split, reference"""
    data = verbs.add_parser("data", help="fetch, convert, describe and show data sets")
    data = data.add_subparsers(dest="data_verb", required=True, metavar="VERB")

    p = add_verb(data, "fetch", fetch)
    p.add_argument("dataset")
    p.add_argument("folder", help="where the upstream files go")
    p.add_argument("--mirror", help="folder or URL prefix instead of the internet")
    p.add_argument(
        "--live", action="store_true", help="materials_project: the live database (MP_API_KEY)"
    )

    p = add_verb(data, "convert", convert)
    p.add_argument("dataset")
    p.add_argument("folder", help="the upstream files")
    p.add_argument("output", help="HDF5 file to write")
    p.add_argument(
        "--cutoff", type=float, help="crystals: drop those with an atom without neighbour in Å"
    )
    p.add_argument("--approximate", help="comma-separated properties that are approximations")
    p.add_argument("--digest", help="text file to write the digest of the content to")

    p = add_verb(data, "neighbours", neighbours)
    p.add_argument("data", help="converted data set")
    p.add_argument("output", help="HDF5 file to write")
    p.add_argument("--cutoff", type=float, required=True, help="in Å")

    p = add_verb(data, "describe", describe)
    p.add_argument("file")
    p.add_argument("-o", "--output", help="also draw the distributions into this picture")

    p = add_verb(data, "show", show)
    p.add_argument("file")
    p.add_argument("index", type=int)
    what = "picture (png, pdf, svg), or a page in which it can be turned (html)"
    p.add_argument("-o", "--output", required=True, help=what)

    p = add_verb(data, "export", export)
    p.add_argument("file")
    p.add_argument("which", help="number of a structure, or a range: 0:100, ::10, : for all")
    p.add_argument("output", help="its name says the format: frame.extxyz, frame.cif, …")

    p = add_verb(verbs, "split", split)
    p.add_argument("data")
    p.add_argument("output", help="split file to write (.npz)")
    p.add_argument("--n-train", type=at_least_one, required=True)
    p.add_argument("--n-validation", type=at_least_one, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--strategy", default="random", choices=("random", "by_group", "predefined"))

    p = add_verb(verbs, "reference", reference)
    p.add_argument("dataset")
    p.add_argument("folder")
    p.add_argument("--options", help="JSON: how much to make (see the scale files)")
    p.add_argument("--workers", type=at_least_one, default=os.cpu_count())
    p.add_argument("--model", help="c20: drive the trajectories with this model file")
