"""One HTML page: tables, figures, where every number comes from and what it cost."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from schnet import figures
from schnet.files import write_text
from schnet.finished import Finished
from schnet.project import Project
from schnet.run import RUN_FILE, Run
from schnet.tables import architectures_table, make_table
from schnet.tables.writers import html_fragment
from schnet.verify import is_current

CSS = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;
color:#1a1a1a}
table{border-collapse:collapse;font-size:13px}
td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}
thead th{border-bottom:2px solid #333;vertical-align:bottom}
.scroll{overflow-x:auto}.notes{color:#444;font-size:12px}img{max-width:100%}
small{color:#666;font-weight:normal}
.banner{background:#fff4d6;border-left:4px solid #e69f00;padding:.6rem 1rem}
details{font-size:12px}
pre{background:#f6f6f6;padding:.5rem;overflow-x:auto;font-size:11px}
"""
COLUMNS = ("run", "steps", "training", "per step", "memory", "engine", "hardware", "verified")
VERIFIED = {True: "with this code", False: "other numbers", None: "not with this code"}
NONE = "–"


def _cost(run: Run, finished: Finished) -> list[str]:
    """One line of the list of runs, in the order of COLUMNS; a dash for what a method has not."""
    steps, seconds, memory = finished.steps, finished.seconds, finished.memory_mb
    per_step = NONE
    if steps and seconds is not None:
        per_step = f"{1000 * seconds / steps:.2f} ms"
    return [
        run.path,
        f"{steps:,}" if steps else NONE,
        f"{seconds:,.0f} s" if seconds is not None else NONE,
        per_step,
        f"{memory:,.0f} MB" if memory is not None else NONE,
        finished.engine or finished.method,
        finished.hardware,
        VERIFIED[is_current(run.folder)],
    ]


def _extremes(run: Run) -> str:
    """The structures with the largest and the smallest error of each test part."""
    metrics = run.metrics()
    if metrics is None:
        return ""
    texts = []
    for part, quantities in metrics["parts"].items():
        target = quantities[metrics["target"]]
        if part.startswith("test") and target.get("largest"):
            large, small = target["largest"][0], target["smallest"][0]
            texts.append(
                f"{part}: largest error {large['id']} ({large['error']:+.3g} {target['unit']}), "
                f"smallest {small['id']} ({small['error']:+.1g} {target['unit']})"
            )
    return "; ".join(texts)


def _runs(project: Project) -> str:
    """Cost and provenance of every finished run."""
    lines, details, hours = [], [], 0.0
    for path, run in sorted(project.runs.items()):
        finished = Finished.read(run)
        if finished is None:
            continue
        hours += (finished.seconds or 0.0) / 3600
        anchor = html.escape(path)
        cells = "".join(f"<td>{html.escape(text)}</td>" for text in _cost(run, finished))
        lines.append(f'<tr id="run-{anchor}">{cells}</tr>')
        about = html.escape((run.folder / RUN_FILE).read_text(encoding="utf-8"))
        details.append(
            f"<details><summary>{anchor}</summary><p>{html.escape(_extremes(run))}</p>"
            f"<pre>{about}</pre></details>"
        )
    head = "".join(f"<th>{title}</th>" for title in COLUMNS)
    count = f"{len(lines)} of {len(project.runs)} runs, {hours:.2f} hours of training in all."
    return (
        f"<section id='runs'><h2>Runs and their cost</h2><p>{count}</p>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>{''.join(details)}</section>"
    )


def _figure(project: Project, name: str) -> str:
    """A drawn figure with its caption; empty while it is not drawn."""
    picture = project.results / "figures" / f"{name}.png"
    if not picture.exists():
        return ""
    code = base64.b64encode(picture.read_bytes()).decode()
    caption = html.escape(figures.caption(project, name))
    links = "".join(
        f" <a href='figures/{name}.{suffix}'>{name}.{suffix}</a>"
        for suffix in figures.extras(project, name)
        if picture.with_suffix(f".{suffix}").exists()
    )
    return (
        f"<section id='{html.escape(name)}'><figure>"
        f"<img alt='{caption}' src='data:image/png;base64,{code}'>"
        f"<figcaption>{caption}{links}</figcaption></figure></section>"
    )


def render(project: Project, output: str | Path):
    """Write the report; figures that are not drawn yet are left out.

    Args:
        project: the resolved configuration.
        output: the HTML file.
    """
    parts, contents = [], []
    for name, experiment in project.experiments.items():
        parts.append(html_fragment(make_table(project, name)))
        contents.append((name, experiment["title"]))
    components = architectures_table()
    parts.append(html_fragment(components))
    contents.append((components.name, components.title))
    for name, figure in project.figures.items():
        section = _figure(project, name)
        if section:
            parts.append(section)
            contents.append((name, figure["title"]))
    parts.append(_runs(project))
    contents.append(("runs", "Runs"))
    links = " · ".join(f"<a href='#{name}'>{html.escape(title)}</a>" for name, title in contents)
    scale = html.escape(project.config["scale"])
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>SchNet replication ({scale})</title><style>{CSS}</style>"
        f"<h1>SchNet: replication, {scale} scale</h1>"
        f"<p class='banner'>{html.escape(project.scale['note'])}</p>"
        f"<p>{links}</p>{''.join(parts)}</html>\n"
    )
    write_text(Path(output), page)
