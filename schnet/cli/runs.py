"""Verbs that train, judge and use models."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from schnet.cli.options import add_compute, add_engine, add_verb, at_least_one, mapping
from schnet.errors import ConfigError, SchNetError
from schnet.parent import ENDS_WITH

ORPHAN = 60.0  # seconds that a training waits for one in the same directory to end


def _settings(args) -> tuple[dict, str]:
    """The settings of ``schnet train``'s argument, and where they were found."""
    from schnet.files import read_yaml
    from schnet.record import settings_of
    from schnet.schema import validate

    inline = args.run.lstrip().startswith("{")
    where = "run" if inline else args.run
    values = mapping(args.run, where) if inline else read_yaml(args.run)
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: a mapping with the settings of a run is expected")
    values = settings_of(values)
    for key in ("data", "split", "neighbours", "engine", "checkpoint_interval"):
        if getattr(args, key) is not None:
            values[key] = getattr(args, key)
    validate(values, "run", where)
    for key in ("data", "split"):
        if not values.get(key):
            raise ConfigError(f"{where}: {key} must be given, or --{key}")
    return values, where


def train(args):
    """Train one model; continues by itself after an interruption."""
    from schnet.methods import fit
    from schnet.run import make_spec

    values, where = _settings(args)
    out = args.output
    if out is None:
        if where == "run":
            raise ConfigError("--output is needed when the run is given inline")
        out = str(Path(args.run).parent)
    spec = make_spec(values, where)
    gc.freeze()  # what is loaded by now is no garbage: the collector would look through it again
    # one that a killed workflow left behind ends with its next step
    wait = ORPHAN if ENDS_WITH in os.environ else 0.0
    fit(spec, out, threads=args.threads, device=args.device, wait=wait)


def evaluate(args):
    """Predict validation and test structures of runs."""
    from schnet.evaluation import evaluate

    for run in args.run:
        metrics = evaluate(
            run,
            threads=args.threads,
            device=args.device,
            engine=args.engine,
            data=args.data,
            split=args.split,
            neighbours=args.neighbours,
            keep_checkpoint=args.keep_checkpoint,
        )
        for part, values in metrics["parts"].items():
            errors = (f"{q} MAE {v['mae']:.4g} {v['unit']}" for q, v in values.items())
            print(f"{run} {part}: " + ", ".join(errors))


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
    from schnet.tables import architectures_table, render_architectures, writers

    if stem is None:
        print(writers.markdown(architectures_table()), end="")
    else:
        render_architectures(stem)


def models(args):
    """List trained models that can be named wherever a model file is asked for."""
    from schnet.trained import trained_models

    if args.architectures:
        return _architectures(args.output)
    if args.output:
        raise ConfigError("--output: trained models are only printed; add --architectures")
    found = trained_models()
    if not found:
        print("no trained models here; clone the repository, or train your own")
        return
    width = max(map(len, found))
    for name, run in found.items():
        error = f"{run.quantity} MAE {run.error:.3g} {run.unit}"
        print(f"{name:{width}}  N = {run.n_train:6,}  {error:36} {run.file}")


def predict(args):
    """Predict structures of any file ASE reads."""
    from schnet.predict import predict_file

    predict_file(args.model, args.structures, args.output, threads=args.threads, device=args.device)


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


def add_verbs(verbs):
    """train, evaluate, verify, models, predict, import-tf"""
    p = add_verb(verbs, "train", train)
    p.add_argument("run", help="run file (YAML), or its content as JSON")
    p.add_argument("-o", "--output", help="run directory (default: that of the run file)")
    p.add_argument("--data", help="converted data set, in place of the run file's")
    p.add_argument("--split", help="split file, in place of the run file's")
    p.add_argument("--neighbours", help="neighbour lists, in place of the run file's")
    p.add_argument("--checkpoint-interval", type=at_least_one, help="steps between checkpoints")
    add_engine(p, default=None)
    add_compute(p)

    p = add_verb(verbs, "evaluate", evaluate)
    p.add_argument("run", nargs="+", help="run directory")
    p.add_argument("--data", help="converted data set, in place of the run's")
    p.add_argument("--split", help="split file, in place of the run's")
    p.add_argument("--neighbours", help="neighbour lists, in place of the run's")
    p.add_argument(
        "--keep-checkpoint",
        action="store_true",
        help="leave the checkpoint: the training, asked for again, is back in seconds",
    )
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
        default=1000,
        help="predict at most so many (default: 1000)",
    )
    p.add_argument("--data", help="converted data set, in place of the run's")
    p.add_argument("--split", help="split file, in place of the run's")
    p.add_argument("--neighbours", help="neighbour lists, in place of the run's")
    add_compute(p)

    p = add_verb(verbs, "models", models)
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
    p.add_argument("structures", help="any file that ASE reads")
    p.add_argument("-o", "--output", required=True, help="extended xyz file to write")
    add_compute(p)

    p = add_verb(verbs, "import-tf", import_tf)
    p.add_argument("folder", help="folder with args.npy and validation/best_model.*")
    p.add_argument("output")
