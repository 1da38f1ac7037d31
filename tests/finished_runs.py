"""Finished runs as a test wants them: settings, errors and provenance, without a training."""

import csv
import json

from schnet import tables
from schnet.files import write_json, write_yaml
from schnet.project import load_project


def open_project(root, tmp_path, scale="small"):
    return load_project({"scale": scale, "results_dir": str(tmp_path / "results")}, root=root)


def runs_of(project, experiment, row, column):
    """The runs behind one cell."""
    cells = {(c.row, c.column): c for c in project.cells[experiment]}
    return cells[row, column].runs


def finish(
    run,
    mae=1.0,
    unit="eV",
    quantity=None,
    raw=None,
    deviation=None,
    execution=None,
    result=None,
    **about,
):
    """Write run.yaml and metrics.json of a run, as training and evaluation do."""
    quantity = quantity or run.settings.target
    errors = {quantity: {"mae": mae, "rmse": 2 * mae, "unit": unit, "n": 9}}
    if deviation is not None:
        errors[quantity]["deviation"] = deviation
    alternatives = {}
    if raw is not None:
        alternatives = {"raw": {"test": {quantity: {"mae": raw, "unit": unit}}}}
    metrics = {
        "target": run.settings.target,
        "weights": "raw",
        "parts": {"test": errors},
        "alternatives": alternatives,
    }
    write_json(run.metrics_file, metrics)
    source = {"file": "f", "url": "u", "checksum_from": "workflow/sources.yaml"}
    content = {
        "run": run.settings.scientific(),
        "execution": execution or {"device": "cpu", "threads": 1},
        "result": result
        or {"steps": 10, "training_seconds": 2.0, "peak_memory_mb": 7, "engine": "reference"},
        "data": {
            "sources": [source],
            "notes": {},
            "digest": "0123456789abcdef",
            "split_digest": "s",
        },
        "provenance": {"code": {}, "gpu": "A big GPU", "cpu": "a small CPU"},
    }
    for key, value in about.items():
        content[key] = content.get(key, {}) | value
    write_yaml(run.folder / "run.yaml", content)


def finish_all(project, name):
    """Finish all runs of a table with whatever its cells show."""
    cells = [cell for cells in project.cells.values() for cell in cells]
    for k, run in enumerate(project.runs_of(name)):
        finish(run)
        metrics = json.loads(run.metrics_file.read_text())
        for cell in (c for c in cells if run.path in {r.path for r in c.runs}):
            error = {"mae": 0.0123 * (k + 1), "rmse": 1.0, "n": 9, "unit": cell.unit or "eV"}
            metrics["parts"].setdefault(cell.part, {})[cell.quantity] = error
        write_json(run.metrics_file, metrics)


def sources(*records):
    return {"sources": [{"url": "u"} | record for record in records]}


def rendered(project, name, tmp_path):
    """(Markdown, LaTeX, cells of the CSV file by row and column) of a table."""
    stem = tmp_path / "rendered" / name
    tables.render(project, name, stem)
    with open(stem.with_suffix(".csv"), newline="", encoding="utf-8") as f:
        cells = {(r["row"], r["column"]): r for r in csv.DictReader(f)}
    return stem.with_suffix(".md").read_text(), stem.with_suffix(".tex").read_text(), cells


def line_of(markdown, label):
    """The texts of one row of a Markdown table."""
    line = next(x for x in markdown.splitlines() if x.startswith(f"| {label} |"))
    return [text.strip() for text in line.strip("|").split("|")]


def write_methods_table(workflow):
    """A table of two methods, one with gradient steps and one without."""
    experiment = {
        "title": "Methods",
        "caption": "A network beside the mean.",
        "run": {
            "dataset": "qm9",
            "target": "U0",
            "n_train": 110000,
            "model": {"n_interactions": 3},
        },
        "rows": [
            {"key": "schnet", "label": "SchNet", "unit": "eV"},
            {"key": "mean", "label": "mean", "unit": "eV", "run": {"method": "mean"}},
        ],
        "columns": [{"key": "mae", "label": "MAE"}],
    }
    write_yaml(workflow / "workflow" / "experiments" / "methods.yaml", experiment)
