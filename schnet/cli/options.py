"""Options and look-ups that several verbs share."""

from __future__ import annotations

import argparse
import json

from schnet.errors import ConfigError


def add_verb(parent, name: str, function) -> argparse.ArgumentParser:
    """A verb that calls ``function`` with the parsed arguments; its docstring is the help."""
    help = function.__doc__
    p = parent.add_parser(name, help=help[0].lower() + help[1:].rstrip("."), description=help)
    p.set_defaults(function=function)
    return p


def at_least_one(text: str) -> int:
    """A whole number from 1, as the type of an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def duration(text: str) -> float:
    """Seconds, from 90s, 10m or 2h, as the type of an option."""
    number, unit = text[:-1], text[-1:]
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(unit, 0.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, as 90s, 10m or 2h")
    return seconds


def mapping(text: str, where: str) -> dict:
    """A mapping given as JSON on the command line; ConfigError when it is none."""
    try:
        value = json.loads(text)
    except ValueError as error:
        example = """'{"name": "value"}'"""
        raise ConfigError(f"{where}: not valid JSON ({error}); for example {example}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: not a mapping, but {text}")
    return value


def add_device(p):
    """--device"""
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def add_compute(p):
    """--threads and --device"""
    p.add_argument("--threads", type=at_least_one, default=1, help="CPU threads (default: 1)")
    add_device(p)


def add_engine(p, default: str | None = "auto"):
    """--engine"""
    p.add_argument(
        "--engine",
        default=default,
        choices=("auto", "native", "table", "reference"),
        help="auto: the fastest that applies",
    )


def add_configuration(p):
    """--config, --scale and --mirror"""
    p.add_argument("--config", help="configuration (.json), or JSON on top of config.yaml")
    p.add_argument("--scale", help="scale instead of that of config.yaml")
    p.add_argument("--mirror", help="mirror instead of that of config.yaml")
    p.add_argument("--results-dir", help="results folder instead of that of config.yaml")


def configured_project(args):
    """The project that ``add_configuration``'s options and config.yaml describe."""
    from schnet.files import read_json
    from schnet.project import load_project
    from schnet.workflow import find_workflow, load_config

    root = find_workflow(args.workflow)
    values = load_config(root)
    if args.config and args.config.endswith(".json"):
        values = read_json(args.config)
    elif args.config:
        values |= mapping(args.config, "--config")
    for key in ("scale", "mirror", "results_dir"):
        if getattr(args, key):
            values[key] = getattr(args, key)
    return load_project(values, root)


def named_source(args) -> dict:
    """What workflow/sources.yaml says of ``args.dataset``; ConfigError with the nearest name."""
    from schnet.workflow import find_workflow, known_or_nearest, load_sources

    sources = load_sources(find_workflow(args.workflow))
    known_or_nearest(args.dataset, sources, "data set", "workflow/sources.yaml")
    return sources[args.dataset]
