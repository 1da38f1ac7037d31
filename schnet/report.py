"""One HTML page: tables, figures, where every number comes from and what it cost."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from schnet import figures, provenance, tables
from schnet.files import read_json, read_yaml, write_text
from schnet.project import Project

CSS = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;font-size:13px}td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}thead th{border-bottom:2px solid #333;vertical-align:bottom}
.scroll{overflow-x:auto}.notes{color:#444;font-size:12px}img{max-width:100%}small{color:#666;font-weight:normal}
.banner{background:#fff4d6;border-left:4px solid #e69f00;padding:.6rem 1rem}details{font-size:12px}
pre{background:#f6f6f6;padding:.5rem;overflow-x:auto;font-size:11px}
"""


def _runs(project: Project) -> str:
    """Cost and provenance of every finished run."""
    lines, details, total = [], [], 0.0
    for run in sorted(project.runs):
        folder = project.results / "runs" / run
        if not (folder / "run.yaml").exists():
            continue
        about = read_yaml(folder / "run.yaml")
        result, where = about["result"], about["provenance"]
        total += result["training_seconds"]
        extremes = ""
        if (folder / "metrics.json").exists():
            metrics = read_json(folder / "metrics.json")
            for part, values in metrics["parts"].items():
                largest = values[metrics["target"]].get("largest")
                if part.startswith("test") and largest:
                    small = values[metrics["target"]]["smallest"][0]
                    extremes += (
                        f"{part}: largest error {largest[0]['id']} ({largest[0]['error']:+.3g}), smallest {small['id']} ({small['error']:+.1g}) "
                    )
        changed = provenance.changed(where)
        anchor = html.escape(run)
        cells = [
            run,
            f"{result['steps']:,}",
            f"{result['training_seconds']:,.0f} s",
            f"{1000 * result['training_seconds'] / max(1, result['steps']):.2f} ms",
            f"{result['peak_memory_mb']:,} MB",
            result["engine"],
            where["gpu"] or where["cpu"],
            f"changed since: {', '.join(changed)}" if changed else "current",
        ]
        lines.append(f'<tr id="run-{anchor}">' + "".join(f"<td>{html.escape(str(c))}</td>" for c in cells) + "</tr>")
        text = (folder / "run.yaml").read_text(encoding="utf-8")
        details.append(f"<details><summary>{anchor}</summary><p>{html.escape(extremes)}</p><pre>{html.escape(text)}</pre></details>")
    head = "".join(f"<th>{h}</th>" for h in ("run", "steps", "training", "per step", "memory", "engine", "hardware", "code"))
    return (
        f"<section id='runs'><h2>Runs and their cost</h2><p>{len(lines)} of {len(project.runs)} runs, {total / 3600:.2f} hours of training in all.</p>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{''.join(details)}</section>"
    )


def render(project: Project, output):
    """Write the report; tables and figures that are not rendered yet are left out."""
    parts, contents = [], []
    for name in project.experiments:
        if project.experiments[name].get("layout") == "curve":
            continue
        cells = tables.entries(project, name)
        header, rows = tables.grid(project, name, cells)
        parts.append(tables.html_table(project, name, header, rows, tables.footnotes(project, name, cells), cells))
        contents.append((name, project.experiments[name]["title"]))
    for name in figures.FIGURES:
        picture = project.results / "figures" / f"{name}.png"
        if picture.exists():
            code = base64.b64encode(picture.read_bytes()).decode()
            caption = html.escape(figures.caption(project, name))
            parts.append(
                f"<section id='{name}'><figure><img alt='{caption}' src='data:image/png;base64,{code}'><figcaption>{caption}</figcaption></figure></section>"
            )
            contents.append((name, name.replace("_", " ")))
    parts.append(_runs(project))
    contents.append(("runs", "Runs"))
    links = " · ".join(f"<a href='#{n}'>{html.escape(t)}</a>" for n, t in contents)
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>SchNet replication ({project.config['scale']})</title><style>{CSS}</style>"
        f"<h1>SchNet: replication, {project.config['scale']} scale</h1><p class='banner'>{html.escape(project.scale['note'])}</p><p>{links}</p>{''.join(parts)}</html>\n"
    )
    write_text(Path(output), page)
