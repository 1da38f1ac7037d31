"""Tables from the metrics of their runs and the printed numbers; no number of their own."""

from __future__ import annotations

import csv
import html
import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from schnet import provenance
from schnet.errors import ConfigError
from schnet.files import read_json, read_yaml, write_json, write_text
from schnet.project import ROOT, Project
from schnet.units import factor


@dataclass
class Entry:
    """One rendered cell. Values in ``unit``; error: standard error of the mean over repeats (nan for one)."""

    row: str
    column: str
    unit: str
    measured: float | None = None
    error: float | None = None
    repeats: int = 0
    printed: float | None = None
    printed_error: float | None = None
    printed_text: str = ""  # as in the paper, with its digits
    quoted: bool = False
    extension: bool = False
    missing: str = ""
    runs: list[str] = field(default_factory=list)
    raw: float | None = None  # raw weights, where the model is a weight average

    @property
    def difference(self) -> float | None:
        return None if self.measured is None or self.printed is None else self.measured - self.printed


def published(name: str | None) -> dict:
    """(row, column) -> (value, uncertainty or None, unit, text) of workflow/published/NAME."""
    if not name:
        return {}

    def text(row):
        return row["value"] + (f" ± {row['uncertainty']}" if row["uncertainty"] else "")

    with open(ROOT / "workflow" / "published" / name, encoding="utf-8", newline="") as f:
        return {
            (r["row"], r["column"]): (float(r["value"]), float(r["uncertainty"]) if r["uncertainty"] else None, r["unit"], text(r))
            for r in csv.DictReader(f)
        }


def _metric(metrics: dict, part: str, quantity: str, where):
    try:
        return metrics["parts"][part][quantity]
    except KeyError as error:
        raise ConfigError(f"{where}: no {quantity!r} for part {part!r}; it has {', '.join(metrics['parts'])}") from error


def entries(project: Project, name: str) -> list[Entry]:
    """All cells of a table, measured where runs are there, and what is missing where they are not."""
    experiment = project.experiments[name]
    printed = published(experiment.get("published"))
    cells = {(c.row, c.column): c for c in project.cells[name]}
    out = []
    for row in experiment["rows"]:
        for column in experiment["columns"]:
            key = (row["key"], column["key"])
            value, uncertainty, unit, text = printed.get(key, (None, None, column.get("unit") or row.get("unit"), "–"))
            e = Entry(*key, unit, printed=value, printed_error=uncertainty, printed_text=text, extension=bool(row.get("extension")))
            out.append(e)
            if key not in cells:
                e.quoted = True
                continue
            cell = cells[key]
            e.missing = cell.missing
            values, raw = [], []
            for run in cell.runs:
                path = project.results / "runs" / run / "metrics.json"
                if not path.exists():
                    e.missing = f"{sum((project.results / 'runs' / r / 'metrics.json').exists() for r in cell.runs)} of {len(cell.runs)} runs there"
                    continue
                metrics = read_json(path)
                m = _metric(metrics, cell.part, cell.quantity, path)
                values.append(m["mae"] * factor(m["unit"], e.unit))
                other = metrics["alternatives"].get("raw", {}).get(cell.part, {}).get(cell.quantity)
                if other:
                    raw.append(other["mae"] * factor(other["unit"], e.unit))
                e.runs.append(run)
            if values:
                e.measured, e.repeats = float(np.mean(values)), len(values)
                e.error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
                e.raw = float(np.mean(raw)) if raw else None
    return out


def footnotes(project: Project, name: str, cells: list[Entry]) -> list[str]:
    """Where scale, data or protocol differ from the paper."""
    experiment, config = project.experiments[name], project.config
    notes = [project.scale["note"]]
    runs = [read_yaml(project.results / "runs" / r / "run.yaml") for r in dict.fromkeys(r for c in cells for r in c.runs)]
    if runs:
        sizes = sorted({(r["run"]["dataset"].split("_")[0], r["result"]["n_train"], r["result"]["steps"]) for r in runs})
        notes.append("Trained here: " + "; ".join(f"{d}: N = {n:,}, {s:,} steps" for d, n, s in sizes) + ".")
        made = sorted({s["url"] for r in runs for s in r["data"]["sources"] if s["checksum_from"] == "made here"})
        notes += [f"Data {m}." for m in made]
        own = sorted({s["file"] for r in runs for s in r["data"]["sources"] if s["checksum_from"] == "mirror"})
        if own:
            notes.append("Data from a mirror with checksums of its own, not the upstream files (a slice or revised labels): " + ", ".join(own) + ".")
        if any(r["run"]["protocol"] == "short" for r in runs):
            notes.append(
                "Protocol short: learning rate kept for three quarters of the run, then lowered; averaged weights (EMA) are the model. Raw weights are in the JSON and CSV files."
            )
        if any(r["run"]["protocol"] == "tf_code" for r in runs):
            notes.append("Protocol tf_code: loss and validation as in the authors' code.")
        older = [c for c in (provenance.changed(r["provenance"]) for r in runs) if c]
        if older:
            parts = ", ".join(sorted({p for c in older for p in c}))
            agree = " (every engine agrees with the reference to float32 rounding, tests/test_engine.py)" if parts == "engine" else ""
            notes.append(
                f"Code that has changed since {len(older)} of {len(runs)} runs were trained: {parts}{agree}; `snakemake --forcerun train` trains again."
            )
    approximate = set(project.scale.get("approximate", ())) & {c.row for c in cells}
    if approximate:
        notes.append(f"Only approximated in the demo's data: {', '.join(sorted(approximate))}.")
    notes += experiment.get("notes", [])
    notes += [f"{row['label']}: {row['note']}" for row in experiment["rows"] if row.get("note")]
    missing: dict[str, list[str]] = {}
    for c in cells:
        if c.missing:
            missing.setdefault(c.missing, []).append(f"{c.row}/{c.column}")
    notes += [f"Missing, {reason}: {', '.join(where)}." for reason, where in missing.items()]
    if any(c.quoted for c in cells):
        notes.append("Columns and rows without a measured value are quoted from the paper; they are not computed here.")
    if config["scale"] == "demo":
        notes.append("Demo numbers: never to be compared with the printed ones.")
    return notes


def number(value: float | None, error: float | None = None) -> str:
    """A value with three significant digits, and its standard error."""
    if value is None:
        return "–"
    digits = 3 if value == 0 or not math.isfinite(value) else max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


def grid(project: Project, name: str, cells: list[Entry]):
    """(header, rows) of texts: every computed column as measured, printed and difference; quoted ones as printed."""
    experiment = project.experiments[name]
    by_key = {(c.row, c.column): c for c in cells}
    header = [experiment.get("row_title", "")]
    units = {c.unit for c in cells}
    demo = project.config["scale"] == "demo"  # no differences: the two must not be compared
    compared = {c.column for c in cells if c.printed is not None}
    with_unit = len(units) > 1 and not any(col.get("unit") for col in experiment["columns"])
    if with_unit:
        header.append("Unit")
    for column in experiment["columns"]:
        title = ", ".join(filter(None, (column.get("group"), column["label"])))
        title += f" ({column['unit']})" if column.get("unit") else ""
        if column.get("quoted"):
            header.append(f"{title}, quoted")
        else:
            header += [f"{title}, here"] + (["paper"] + ["difference"] * (not demo)) * (column["key"] in compared)
    rows = []
    for row in experiment["rows"]:
        # where the printed unit is in doubt, a second line reads the printed number in the other unit
        for unit in (None, row["also_unit"]) if row.get("also_unit") else (None,):
            line = [f"{row['label']}, if printed in {unit}" if unit else row["label"]]
            if with_unit:
                line.append(unit or row.get("unit", ""))
            for column in experiment["columns"]:
                e = by_key[(row["key"], column["key"])]
                if column.get("quoted"):
                    line.append("–" if unit else e.printed_text)
                    continue
                scale = factor(e.unit, unit) if unit else 1.0
                measured = None if e.measured is None else e.measured * scale
                line.append("–" if e.quoted else number(measured, None if e.error is None else e.error * scale))
                if column["key"] in compared:
                    difference = "–" if measured is None or e.printed is None else f"{measured - e.printed:+.3g}"
                    line += [e.printed_text] + [difference] * (not demo)
            rows.append(line)
    return header, rows


def _markdown(project, name, header, rows, notes) -> str:
    experiment = project.experiments[name]
    lines = [f"## {experiment['title']} ({project.config['scale']} scale)", "", experiment["caption"].strip(), ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(lines + [""] + [f"- {n}" for n in notes]) + "\n"


_TEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "ε": r"$\epsilon$", "Δ": r"$\Delta$", "μ": r"$\mu$", "α": r"$\alpha$", "ρ": r"$\rho$", "⟨": r"$\langle$", "⟩": r"$\rangle$", "²": r"$^2$", "³": r"$^3$", "Å": r"\AA{}", "±": r"$\pm$", "–": "--", "^2": r"$^2$", "^3": r"$^3$", "−": "--"}  # fmt: skip


def _latex_text(text: str) -> str:
    for a in sorted(_TEX, key=len, reverse=True):
        if a != "_" or "$" not in text:
            text = text.replace(a, _TEX[a])
    return text


def _latex(project, name, header, rows, notes) -> str:
    experiment = project.experiments[name]
    body = " \\\\\n".join(" & ".join(_latex_text(c) for c in r) for r in rows)
    foot = "\\\\\n".join(f"\\footnotesize {_latex_text(n)}" for n in notes)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table*}\n"
        f"\\caption{{{_latex_text(experiment['title'])} ({project.config['scale']} scale). {_latex_text(experiment['caption'].strip())}}}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n"
        + " & ".join(_latex_text(h) for h in header)
        + " \\\\\n\\midrule\n"
        + body
        + " \\\\\n\\bottomrule\n\\end{tabular}\n\n"
        + foot
        + "\n\\end{table*}\n"
    )


def html_table(project, name, header, rows, notes, cells) -> str:
    """The table as an HTML fragment; measured cells link to their runs in the report."""
    experiment = project.experiments[name]
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in r) + "</tr>" for r in rows)
    foot = "".join(f"<li>{html.escape(n)}</li>" for n in notes)
    links = []
    for c in cells:
        if c.runs:
            runs = ", ".join(f'<a href="#run-{html.escape(r)}">{html.escape(r)}</a>' for r in c.runs)
            links.append(f"<li>{html.escape(c.row)}, {html.escape(c.column)}: {runs}</li>")
    return (
        f'<section id="{name}"><h2>{html.escape(experiment["title"])} <small>({project.config["scale"]} scale)</small></h2>'
        f"<p>{html.escape(experiment['caption'].strip())}</p><div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<ul class='notes'>{foot}</ul><details><summary>Runs behind the cells</summary><ul>{''.join(links)}</ul></details></section>"
    )


def render(project: Project, name: str, stem):
    """Write STEM.csv, .md, .tex, .html and .json."""
    if name not in project.experiments:
        raise ConfigError(f"no experiment {name!r} in workflow/experiments; known: {', '.join(project.experiments)}")
    cells = entries(project, name)
    notes = footnotes(project, name, cells)
    header, rows = grid(project, name, cells)
    stem = Path(stem)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [
            "row",
            "column",
            "unit",
            "measured",
            "standard_error",
            "repeats",
            "printed",
            "printed_error",
            "difference",
            "raw_weights",
            "quoted",
            "missing",
        ]
    )
    for c in cells:
        shown = [None if v is None else f"{v:.6g}" for v in (c.measured, c.error)]
        writer.writerow(
            [
                c.row,
                c.column,
                c.unit,
                *shown,
                c.repeats or None,
                c.printed,
                c.printed_error,
                None if c.difference is None else f"{c.difference:.4g}",
                None if c.raw is None else f"{c.raw:.6g}",
                c.quoted or None,
                c.missing or None,
            ]
        )
    write_text(stem.with_suffix(".csv"), text.getvalue())
    write_text(stem.with_suffix(".md"), _markdown(project, name, header, rows, notes))
    write_text(stem.with_suffix(".tex"), _latex(project, name, header, rows, notes))
    fragment = html_table(project, name, header, rows, notes, cells)
    write_text(stem.with_suffix(".html"), f"<!doctype html><meta charset='utf-8'><title>{name}</title>{fragment}\n")
    write_json(
        stem.with_suffix(".json"),
        {"name": name, "scale": project.config["scale"], "header": header, "rows": rows, "notes": notes, "cells": [asdict(c) for c in cells]},
    )
