"""Verbs that train, judge and use models."""

from __future__ import annotations

import gc
import logging
import os
import sys
from dataclasses import fields
from pathlib import Path

from schnet.cli.options import (
    add_compute,
    add_engine,
    add_verb,
    at_least_one,
    duration,
    mapping,
)
from schnet.errors import ConfigError, SchNetError
from schnet.parent import ENDS_WITH
from schnet.run import MODEL_FILE, RUN_FILE

log = logging.getLogger("schnet")
#: options of a training without a run file
OWN_DATA = (
    "target", "forces", "unit", "n_train", "n_validation", "steps", "seconds", "cutoff",
    "architecture", "model", "seed",
)  # fmt: skip
ORPHAN = 60.0  # seconds that a training waits for one in the same directory to end


def _settings(args) -> tuple[dict, str, dict]:
    """The settings of ``schnet train``'s argument, where they were found, and what a run that is
    finished was made from (empty for others).
    """
    from schnet.files import read_yaml
    from schnet.run import settings_of
    from schnet.schema import validate

    inline = args.run.lstrip().startswith("{")
    where = "run" if inline else args.run
    values = mapping(args.run, where) if inline else read_yaml(args.run)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where}: a mapping with the settings of a run is expected; "
            "structures follow --data: schnet train --data FILE"
        )
    made_from = values.get("data")
    if not isinstance(made_from, dict):  # the path of a file, in settings written by hand
        made_from = {}
    values = settings_of(values)
    for key in ("data", "split", "neighbours", "engine", "checkpoint_interval"):
        if getattr(args, key) is not None:
            values[key] = getattr(args, key)
    validate(values, "run", where)
    for key in ("data", "split"):
        if not values.get(key):
            raise ConfigError(f"{where}: {key} must be given, or --{key}")
    return values, where, made_from


def _compare_inputs(made_from: dict, store, split: str, where: str) -> None:
    """Warn where a finished run is done again from other data, or with another split."""
    from schnet.data.splits import split_digest

    here = {"digest": (store.path, store.digest), "split_digest": (split, split_digest(split))}
    for key, (file, digest) in here.items():
        before = str(made_from.get(key, digest))
        if before == digest:
            continue
        log.warning(
            "%s: %s is not what this run was made from (digest %s…, not %s…): its errors are not "
            "to be expected here",
            *(where, file, digest[:12], before[:12]),
        )
        return  # a split of other data is another one in any case


def _refuse(args, names: tuple[str, ...], why: str) -> None:
    """Raise ConfigError for an option that is given and has no place here."""
    for name in names:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: {why}")


def _own(args) -> None:
    """Train on a structure file: what a run file would say is chosen, or an option."""
    from schnet.own import Wishes
    from schnet.own import train as train_own

    if args.data is None:
        raise ConfigError("schnet train: a run file, or --data with a structure file, is needed")
    of_runs = ("split", "neighbours", "engine", "checkpoint_interval")
    _refuse(args, of_runs, "needs a run file; without one it is chosen")
    names = [field.name for field in fields(Wishes)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if args.model is not None:
        given["model"] = mapping(args.model, "--model")
    out = args.output or f"{Path(args.data).stem}_model"
    train_own(args.data, out, threads=args.threads, device=args.device, **given)


def _output(args, where: str) -> str:
    """The directory of a run whose file is given: that of the file."""
    if args.output is not None:
        return args.output
    if where == "run":
        raise ConfigError("--output is needed when the run is given inline")
    file = Path(args.run)
    if file.name == RUN_FILE and not (file.parent / MODEL_FILE).exists():
        raise ConfigError(f"{file}: --output is needed, {RUN_FILE} is what a finished run writes")
    return str(file.parent)


def train(args):
    """Train one model and judge it; continues by itself after an interruption."""
    from schnet.data.store import Store
    from schnet.methods import fit
    from schnet.run import make_spec

    if args.run is None:
        return _own(args)
    _refuse(args, OWN_DATA, "is for own data; here the run file says it")
    values, where, made_from = _settings(args)
    out = _output(args, where)
    spec = make_spec(values, where)
    store = Store(spec.data)
    if store.name != spec.dataset:
        log.warning("%s: holds %s, the run says dataset: %s", spec.data, store.name, spec.dataset)
    _compare_inputs(made_from, store, spec.split, where)
    gc.freeze()  # what is loaded by now is no garbage: the collector would look through it again
    # one that a killed workflow left behind ends with its next step
    wait = ORPHAN if ENDS_WITH in os.environ else 0.0
    fit(spec, out, threads=args.threads, device=args.device, wait=wait)
    _judge(args, out, spec, keep_checkpoint=args.keep_checkpoint)


def _judge(args, run: str, files, **options) -> None:
    """Evaluate a finished run and print its errors.

    Args:
        files: with the engine, data, split and neighbours to use: a RunSpec, or ``args``.
        options: others of ``schnet.evaluation.evaluate``.
    """
    from schnet.evaluation import evaluate

    metrics = evaluate(
        run,
        threads=args.threads,
        device=args.device,
        engine=files.engine,
        data=files.data,
        split=files.split,
        neighbours=files.neighbours,
        **options,
    )
    for part, values in metrics["parts"].items():
        errors = (f"{q} MAE {v['mae']:.4g} {v['unit']}" for q, v in values.items())
        print(f"{run} {part}: " + ", ".join(errors))


def evaluate(args):
    """Predict validation and test structures of finished runs again."""
    for run in args.run:
        _judge(args, run, args)


def verify(args):
    """Do the first steps and the evaluation of finished runs still give the same numbers?"""
    from schnet.verify import verify

    good = True
    for run in args.run:
        try:
            good &= verify(
                run,
                threads=args.threads,
                device=args.device,
                steps=args.steps,
                structures=args.structures,
                data=args.data,
                split=args.split,
                neighbours=args.neighbours,
            )
        except (SchNetError, OSError) as error:  # the next run may be fine
            print(f"{run}: cannot be verified: {error}")
            good = False
    if not good:
        sys.exit(1)


def _architectures(stem: str | None):
    """Print what the architectures are made of, or write it to STEM.md and .html."""
    from schnet.tables import architectures_table, render_architectures
    from schnet.tables.writers import markdown

    if stem is None:
        print(markdown(architectures_table()), end="")
    else:
        render_architectures(stem)


def models(args):
    """List trained models that can be named wherever a model file is asked for."""
    from schnet.trained import find_model, models_table, trained_models

    if args.architectures:
        return _architectures(args.output)
    if args.output:
        raise ConfigError("--output: trained models are only printed; add --architectures")
    if args.name:
        print(find_model(args.name))
        return
    found = trained_models()
    if not found:
        print("no trained models here; clone the repository, or train your own")
        return
    print(models_table(found).to_string(index=False))
    print(
        "Use: any of these names where a model file is asked for. The authors' models of C20:\n"
        "schnet data fetch c20 c20 && schnet import-tf c20/force_model c20.pt"
    )


def predict(args):
    """Predict structures of any files ASE reads; says the errors where they hold labels."""
    from schnet.files import check_picture
    from schnet.predict import check_output, draw_parity, predict, report, write_predicted

    if args.output is not None:
        check_output(args.output)
    if args.parity is not None:
        check_picture(args.parity)
    compute = {"threads": args.threads, "device": args.device}
    done = predict(args.model, args.structures, unit=args.unit, **compute)
    if args.output is not None:
        write_predicted(done, args.output)
        target = f"{done.model.target} in {done.model.unit}"
        print(f"{args.output}: {len(done.images):,} structures, {target}")
    report(done, table=args.output is None)
    if args.parity is not None:
        draw_parity(done, args.parity)


def export(args):
    """Write a model of energies and forces for programs without Python (docs/export.md)."""
    import torch

    from schnet.export import INPUTS, OUTPUTS, export

    out = export(args.model, args.output, dtype=getattr(torch, args.dtype))
    print(
        f"{out}: {', '.join(INPUTS)} -> {', '.join(OUTPUTS)} ({args.dtype}), in the model's units"
    )


def import_tf(args):
    """Turn a released TensorFlow checkpoint folder into a model file."""
    from schnet.models import save_model
    from schnet.models.tf_import import import_tf

    model, arguments = import_tf(args.folder)
    save_model(
        args.output,
        model,
        target="energy",
        unit="kcal/mol",
        force_unit="kcal/mol/Å",
        provenance={
            "released model": Path(args.folder).name,
            "arguments": repr(arguments),
        },
    )
    p = model.hyperparameters
    rho = arguments.get("eweight")
    print(f"{args.output}: T={p.n_interactions}, F={p.n_features}, trained with rho={rho}")


def _add_inputs(p):
    """--data, --split and --neighbours in place of those of a finished run"""
    p.add_argument("--data", help="converted data set, in place of the run's")
    p.add_argument("--split", help="split file, in place of the run's")
    p.add_argument("--neighbours", help="neighbour lists, in place of the run's")


def _add_train(verbs):
    """train"""
    p = add_verb(verbs, "train", train)
    p.add_argument("run", nargs="?", help="run file (YAML), or its content as JSON")
    p.add_argument("-o", "--output", help="directory (default: that of the run file)")
    p.add_argument(
        "--data",
        help="converted data set; without a run file any file that ASE reads, with labels",
    )
    own = p.add_argument_group("own data, without a run file (what is not given is chosen)")
    own.add_argument("--target", help="label of a structure to learn (default: energy)")
    own.add_argument("--forces", help="label of the forces, or none (default: forces, if there)")
    own.add_argument("--unit", help="of the target (default: eV for an energy that ASE reads)")
    own.add_argument("--n-train", type=at_least_one, help="structures (default: four fifths)")
    own.add_argument("--n-validation", type=at_least_one, help="structures (default: a tenth)")
    own.add_argument("--steps", type=at_least_one, help="of training")
    own.add_argument(
        "--time",
        dest="seconds",
        type=duration,
        help="of training: 90s, 10m, 2h (default: 10m)",
    )
    own.add_argument("--cutoff", type=float, help="in Å (default: crystals 5, molecules none)")
    own.add_argument("--architecture", help="a name of schnet/models (default: schnet)")
    own.add_argument("--model", help="hyper-parameters, as '{\"n_interactions\": 6}'")
    own.add_argument("--seed", type=int, help="of split, weights and batches (default: 0)")
    p.add_argument("--split", help="split file, in place of the run file's")
    p.add_argument("--neighbours", help="neighbour lists, in place of the run file's")
    p.add_argument("--checkpoint-interval", type=at_least_one, help="steps between checkpoints")
    p.add_argument(
        "--keep-checkpoint",
        action="store_true",
        help="leave the checkpoint: the training, asked for again, is back in seconds",
    )
    add_engine(p, default=None)
    add_compute(p)


def add_verbs(verbs):
    """train, evaluate, verify, models, predict, export, import-tf"""
    _add_train(verbs)

    p = add_verb(verbs, "evaluate", evaluate)
    p.add_argument("run", nargs="+", help="run directory")
    _add_inputs(p)
    add_engine(p)
    add_compute(p)

    p = add_verb(verbs, "verify", verify)
    p.add_argument("run", nargs="+", help="run directory")
    p.add_argument(
        "--steps", type=at_least_one, default=5000, help="replay at most so many (default: 5000)"
    )
    p.add_argument(
        "--structures",
        type=at_least_one,
        default=5000,
        help="predict at most so many test structures (default: 5000)",
    )
    _add_inputs(p)
    add_compute(p)

    p = add_verb(verbs, "models", models)
    p.add_argument("name", nargs="?", help="print the file of this one only")
    p.add_argument(
        "--architectures", action="store_true", help="what every architecture is made of instead"
    )
    p.add_argument(
        "-o",
        "--output",
        help="of --architectures: path without suffix; .md and .html are written",
    )

    p = add_verb(verbs, "predict", predict)
    p.add_argument("model", help="model file, or a name that `schnet models` lists")
    p.add_argument("structures", nargs="+", help="any files that ASE reads")
    p.add_argument(
        "-o",
        "--output",
        help="file to write, in the format that its name says: extxyz, traj, db, csv, … "
        "(default: a table on the terminal)",
    )
    p.add_argument("--parity", help="picture of predictions against labels")
    p.add_argument(
        "--unit",
        help="of energies among the labels (default: eV for results that ASE reads, that of the "
        "model for others)",
    )
    add_compute(p)

    p = add_verb(verbs, "export", export)
    p.add_argument("model", help="model file, or a name that `schnet models` lists")
    p.add_argument("output", help="to write: NAME.pt2 (compiled) or NAME.onnx")
    p.add_argument("--dtype", default="float64", choices=("float64", "float32"))

    p = add_verb(verbs, "import-tf", import_tf)
    p.add_argument("folder", help="folder with args.npy and validation/best_model.*")
    p.add_argument("output")
