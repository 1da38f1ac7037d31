"""Verbs that render, compare and plan results."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from schnet.cli.options import add_compute, add_configuration, add_verb, configured_project
from schnet.errors import ConfigError

log = logging.getLogger("schnet")


def _project_with_results(args):
    """The project, with a warning where it has no run yet: what is rendered will be empty."""
    project = configured_project(args)
    runs = project.results / "runs"
    if not runs.is_dir():
        log.warning("%s: no such folder: there are no results to show (scale, --results-dir)", runs)
    return project


def _stem(output: str, *suffixes: str) -> Path:
    """A path without suffix, also where one of those that are written was given.

    Raises ConfigError for a folder.
    """
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it, without suffix")
    return path.with_suffix("") if path.suffix in suffixes else path


def resolve(args):
    """Write the configuration that decides results: without device, engine and threads."""
    from schnet.files import write_text
    from schnet.workflow import EXECUTION_CONFIG

    config = configured_project(args).config
    kept = {k: v for k, v in config.items() if k not in EXECUTION_CONFIG}
    text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    path = Path(args.output)
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def table(args):
    """Render one table from the metrics of its runs."""
    from schnet.tables import render

    stem = _stem(args.output, ".csv", ".md", ".tex", ".html", ".json")
    render(_project_with_results(args), args.name, stem)


def figure(args):
    """Draw one figure from results."""
    from schnet.figures import render

    render(_project_with_results(args), args.name, args.output)


def report(args):
    """One HTML page with all tables, figures, runs and their cost."""
    from schnet.report import render

    render(_project_with_results(args), args.output)


def summary(args):
    """One Markdown page: the paper's claims and what was found, tables, figures."""
    from schnet.summary import render

    render(_project_with_results(args), args.output)


def compare(args):
    """Check regenerated tables against committed ones, or show two results side by side."""
    from schnet.compare import compare, side_by_side

    if args.output:
        stem = _stem(args.output, ".csv", ".md", ".png", ".pdf")
        side_by_side(args.committed, args.regenerated, stem)
        return
    compare(args.committed, args.regenerated, args.tolerance, args.factor)


def plan(args):
    """Runs, steps, time and disk per table, before anything is started."""
    from schnet.plan import show

    how = {"measure": args.measure, "threads": args.threads, "device": args.device}
    show(configured_project(args), args.experiment, **how)


def add_verbs(verbs):
    """resolve, table, figure, report, summary, compare, plan"""
    p = add_verb(verbs, "resolve", resolve)
    add_configuration(p)
    p.add_argument("output")

    p = add_verb(verbs, "table", table)
    p.add_argument("name")
    p.add_argument(
        "-o",
        "--output",
        required=True,
        help="path without suffix; .csv, .md, .tex, .html, .json are written",
    )
    add_configuration(p)

    p = add_verb(verbs, "figure", figure)
    p.add_argument("name")
    p.add_argument(
        "-o",
        "--output",
        required=True,
        help="picture to write (png); .pdf and .csv are written beside it",
    )
    add_configuration(p)

    p = add_verb(verbs, "report", report)
    p.add_argument("output")
    add_configuration(p)

    p = add_verb(verbs, "summary", summary)
    p.add_argument("output", help="Markdown file")
    add_configuration(p)

    p = add_verb(verbs, "compare", compare)
    p.add_argument("committed", help="results/SCALE, or a folder with tables as CSV")
    p.add_argument("regenerated", help="another one, of the same scale but with --output")
    p.add_argument(
        "-o",
        "--output",
        help="path without suffix: write all cells side by side, of any two scales, as .csv and "
        ".md, a picture of them as .png and .pdf, and judge nothing",
    )
    p.add_argument(
        "--tolerance",
        type=float,
        default=0.05,
        help="largest relative difference where both come from the same data (default: 0.05)",
    )
    p.add_argument(
        "--factor",
        type=float,
        default=5.0,
        help="largest factor between two values from different data (default: 5)",
    )

    p = add_verb(verbs, "plan", plan)
    p.add_argument("experiment", nargs="*", help="experiments to plan (default: all)")
    add_configuration(p)
    p.add_argument(
        "--measure",
        action="store_true",
        help="time every kind of run on this machine now, whatever finished runs tell",
    )
    add_compute(p)
