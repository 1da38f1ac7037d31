"""One HTML page: tables, figures, where every number comes from and what it cost."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

from schnet import figures, provenance
from schnet.files import write_text
from schnet.finished import Finished
from schnet.page import download, page, rich
from schnet.project import Project
from schnet.run import RUN_FILE, Run
from schnet.tables import Table, architectures_table, make_table
from schnet.tables.web import cell_anchor, html_fragment
from schnet.verify import is_current

COLUMNS = (
    "run",
    "shown in",
    "steps",
    "training",
    "per step",
    "memory",
    "engine",
    "hardware",
    "verified",
)
VERIFIED = {True: "with this code", False: "other numbers", None: "not with this code"}
NONE = "–"
#: what is offered for download beside a figure
DOWNLOADS = {"csv": "text/csv", "pdf": "application/pdf"}
LARGEST = 500_000  # bytes of a file that is put into the page
ABOUT = (
    "Every measured number leads to the runs behind it, every run back to the numbers that it is "
    "part of. The files beside tables and figures are part of this page, but for large ones."
)


def duration(seconds: float) -> str:
    """Seconds as a reader wants them, with two or three digits."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360000 else f"{seconds / 3600:,.0f} h"


def _quantity(text: str, value: float | None) -> str:
    """A cell of the list of runs that is sorted by its value; a dash where there is none."""
    if value is None:
        return f"<td data-value=''>{NONE}</td>"
    return f"<td data-value='{value:.6g}'>{text}</td>"


def _cost(run: Run, finished: Finished) -> str:
    """The cells of one run in the order of COLUMNS, but for the first two."""
    steps, seconds, memory = finished.steps or None, finished.seconds, finished.memory_mb
    per_step = None if steps is None or seconds is None else 1000 * seconds / steps
    texts = [finished.engine or finished.method, finished.hardware]
    return "".join(
        [
            _quantity(f"{steps or 0:,}", steps),
            _quantity(duration(seconds or 0.0), seconds),
            _quantity(f"{per_step or 0:.3g} ms", per_step),
            _quantity(f"{memory or 0:,.0f} MB", memory),
            *(f"<td class='text'>{html.escape(text)}</td>" for text in texts),
            f"<td class='text'>{VERIFIED[is_current(run.folder)]}</td>",
        ]
    )


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


def _places(tables: list[Table]) -> dict[str, dict[str, list[str]]]:
    """The cells that a run is part of: run's path -> title of the table -> anchors."""
    places: dict[str, dict[str, list[str]]] = {}
    for table in tables:
        for cell in table.entries:
            for run in cell.runs:
                anchors = places.setdefault(run.path, {}).setdefault(table.title, [])
                anchors.append(cell_anchor(table.name, cell))
    return places


def _back(titles: dict[str, list[str]]) -> str:
    """Links from a run to its cells: the first of each table by its title, others by number."""
    links = []
    for title, anchors in titles.items():
        texts = [rich(title), *map(str, range(2, len(anchors) + 1))]
        links += [
            f"<a href='#{html.escape(anchor)}'>{text}</a>"
            for anchor, text in zip(anchors, texts, strict=True)
        ]
    return ", ".join(links)


def _runs(project: Project, finished: dict[str, Finished], tables: list[Table]) -> str:
    """Cost and provenance of every finished run."""
    places = _places(tables)
    lines, details = [], []
    for path, about in finished.items():
        run, name = project.runs[path], html.escape(path)
        lines.append(
            f'<tr id="run-{name}"><td><a href="#settings-{name}">{name}</a></td>'
            f"<td class='words'>{_back(places.get(path, {}))}</td>{_cost(run, about)}</tr>"
        )
        settings = html.escape((run.folder / RUN_FILE).read_text(encoding="utf-8"))
        details.append(
            f'<details id="settings-{name}"><summary>{name}</summary>'
            f"<p>{html.escape(_extremes(run))}</p><pre>{settings}</pre></details>"
        )
    head = "".join(f"<th class='text'><button>{title}</button></th>" for title in COLUMNS)
    seconds = sum(about.seconds or 0.0 for about in finished.values())
    count = f"{len(lines)} of {len(project.runs)} runs"
    return (
        "<section id='runs'><h2>Runs and their cost</h2>"
        f"<p>{count}, {duration(seconds)} of training in all. A click on a head sorts.</p>"
        f"<div class='scroll'><table class='sortable'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f"<h2>Settings and extremes of every run</h2>{''.join(details)}</section>"
    )


def _figure(project: Project, name: str, folder: Path) -> str:
    """A drawn figure with its caption; empty while it is not drawn.

    Args:
        folder: of the report, to which links to large files and other pages are relative.
    """
    picture = project.results / "figures" / f"{name}.png"
    if not picture.exists():
        return ""
    code = base64.b64encode(picture.read_bytes()).decode()
    title = rich(project.figures[name]["title"])
    caption = html.escape(figures.caption(project, name))
    files, inside = [], ""
    for suffix in (*DOWNLOADS, *figures.extras(project, name)):
        file = picture.with_suffix(f".{suffix}")
        if not file.exists():
            continue
        if suffix in DOWNLOADS and file.stat().st_size <= LARGEST:
            content = file.read_bytes()
            files.append(download(suffix.upper(), file.name, content, DOWNLOADS[suffix]))
        elif suffix == "html" and file.stat().st_size <= LARGEST:
            document = html.escape(file.read_text(encoding="utf-8"))
            inside = f"<iframe loading='lazy' title='{title}' srcdoc='{document}'></iframe>"
        else:
            link = html.escape(Path(os.path.relpath(file, folder)).as_posix())
            files.append(f"<a href='{link}'>{suffix.upper()} ({file.name})</a>")
    scale = html.escape(project.config["scale"])
    return (
        f"<section id='{html.escape(name)}'><h2>{title} <small>({scale} scale)</small></h2>"
        f"<figure><img alt='{title}' src='data:image/png;base64,{code}'>"
        f"<figcaption>{caption}</figcaption></figure>{inside}"
        f"<p class='downloads'>{' · '.join(files)}</p></section>"
    )


def _commit(git: dict) -> str:
    """The commit of a record of provenance, as a reader cites it."""
    if not git.get("commit"):
        return "unknown (no git repository)"
    return git["commit"][:12] + (", with changes" if git.get("modified") else "")


def _origin(project: Project, finished: dict[str, Finished]) -> str:
    """Scale, commit, date and machine of this page, and those of the runs."""
    here = provenance.collect()
    abouts = [project.runs[path].about() or {} for path in finished]
    commits = {_commit(about.get("provenance", {}).get("git", {})) for about in abouts}
    facts = {
        "Scale": project.config["scale"],
        "Date": here["finished"].replace("T", " ").replace("+00:00", " UTC"),
        "Commit": _commit(here["git"]),
        "Machine": f"{provenance.hardware()}, {here['cores']} cores, Python {here['python']}",
        "Commits of the runs": "; ".join(sorted(commits)),
        "Hardware of the runs": ", ".join(sorted({about.hardware for about in finished.values()})),
    }
    lines = (f"<dt class='soft'>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items() if v)
    return f"<dl>{''.join(lines)}</dl>"


def _contents(title: str, entries: dict[str, str]) -> str:
    """A list of links to sections; empty without any."""
    links = (
        f"<li><a href='#{html.escape(name)}'>{rich(text)}</a></li>"
        for name, text in entries.items()
    )
    return f"<h2>{title}</h2><ul>{''.join(links)}</ul>" if entries else ""


def render(project: Project, output: str | Path):
    """Write the report; figures that are not drawn yet are left out.

    Args:
        project: the resolved configuration.
        output: the HTML file.
    """
    output = Path(output)
    names = project.experiments_in_order()
    tables = [*(make_table(project, name) for name in names), architectures_table()]
    drawn = {name: _figure(project, name, output.parent) for name in project.figures_in_order()}
    pictures = {name: section for name, section in drawn.items() if section}
    abouts = {path: Finished.read(run) for path, run in sorted(project.runs.items())}
    finished = {path: about for path, about in abouts.items() if about is not None}
    scale = project.config["scale"]
    body = [
        f"<h1>SchNet: replication, {html.escape(scale)} scale</h1>",
        _origin(project, finished),
        f"<p class='banner'>{html.escape(project.scale['note'])}</p><p>{ABOUT}</p><nav>",
        _contents("Tables", {table.name: table.title for table in tables}),
        _contents("Figures", {name: project.figures[name]["title"] for name in pictures}),
        _contents("Runs", {"runs": "Runs and their cost"}),
        "</nav>",
        *map(html_fragment, tables),
        *pictures.values(),
        _runs(project, finished, tables),
    ]
    write_text(output, page(f"SchNet replication ({scale})", "".join(body)))
