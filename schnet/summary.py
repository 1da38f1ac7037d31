"""One Markdown page: what the paper says and whether it is found here, all tables and figures."""

from __future__ import annotations

import os
from pathlib import Path

from schnet import figures
from schnet.files import write_text
from schnet.project import Project
from schnet.tables import Table, make_table
from schnet.tables.claims import ERRORS, NOISE, Found, by_verdict, judged, reasons
from schnet.tables.writers import markdown

JUDGED = (
    "Judged by the errors measured at this scale; its data, sizes and lengths of training are "
    "below every table. So a claim that is reproduced holds as a trend, on these data; no printed "
    f"number is tested. Too close to say: one less than {100 * NOISE:.0f} % larger than the other "
    f"where one of the two is a single run, less than {ERRORS:g} standard errors apart where both "
    "are means of several."
)

SEVERAL = (
    "A model can appear with several numbers: the mean of its repeats (with ±), its first repeat "
    "alone, or weights of single steps in place of their average (where the notes say so)."
)


def _verdict(found: list[Found]) -> str:
    """What all places of a claim come to."""
    there = {one.verdict for one in found}
    if {"yes", "no"} <= there:
        return "in part"
    if "yes" in there:
        return "reproduced"
    if "no" in there:
        return "not reproduced"
    return "too close to say" if "too close to say" in there else "cannot be tested here"


def _claims(project: Project, tables: list[Table]) -> list[str]:
    """The claims one by one, with the errors behind every verdict."""
    lines = []
    for table in tables:
        experiment = project.experiments[table.name]
        for text, found in judged(experiment, table.entries, project.config["scale"]):
            answers = [
                f"**{verdict}**{reasons(there)}: {_places(there)}"
                for verdict, there in by_verdict(found).items()
            ]
            lines.append(f"| {table.title} | {text} | {_verdict(found)} | {'; '.join(answers)} |")
    if not lines:
        return []
    head = "| table | the paper says | here | where, and the errors compared |"
    return ["## What the paper says", "", JUDGED, "", head, "|---|---|---|---|", *lines, ""]


def _places(found: list[Found]) -> str:
    """Where a verdict holds, and by which errors; the same comparison is named once."""
    by_names: dict[str, list[str]] = {}
    for one in found:
        by_names.setdefault(one.compared, []).append(f"{one.place} {one.errors}".strip())
    texts = (
        f"{names}: {', '.join(places)}" if names else ", ".join(places)
        for names, places in by_names.items()
    )
    return "; ".join(texts)


def _link(file: Path, output: Path) -> str:
    return Path(os.path.relpath(file, output.parent)).as_posix()


def _table(project: Project, table: Table, output: Path) -> list[str]:
    """A table, and where its files are."""
    folder = project.results / "tables"
    kinds = {"CSV": "csv", "LaTeX": "tex"}
    files = {kind: folder / f"{table.name}.{suffix}" for kind, suffix in kinds.items()}
    there = [f"[{kind}]({_link(file, output)})" for kind, file in files.items() if file.exists()]
    lines = [f'<a id="{table.name}"></a>', "", markdown(table).rstrip(), ""]
    if there:
        lines += [f"{', '.join(there)}; the CSV file names the runs behind every number.", ""]
    return lines


def _figure(project: Project, name: str, output: Path) -> list[str]:
    """A picture with its caption."""
    title = project.figures[name]["title"]
    picture = project.results / "figures" / f"{name}.png"
    shown = f"![{title}]({_link(picture, output)})"
    return [
        *(f'<a id="{name}"></a>', "", f"## {title}", ""),
        *(shown, "", figures.caption(project, name), ""),
    ]


def _contents(titles: dict[str, str]) -> str:
    """Links to the sections, by their names."""
    return " · ".join(f"[{title}](#{name})" for name, title in titles.items())


def render(project: Project, output: str | Path) -> None:
    """Write the page, without tables that have no measured number and figures that are not drawn.

    Args:
        project: the resolved configuration.
        output: the Markdown file.
    """
    output = Path(output)
    tables = [make_table(project, name) for name in project.experiments_in_order()]
    tables = [t for t in tables if any(cell.measured is not None for cell in t.entries)]
    for table in tables:
        table.notes = [note for note in table.notes if note != project.scale["note"].strip()]
    pictures = project.results / "figures"
    drawn = [name for name in project.figures_in_order() if (pictures / f"{name}.png").exists()]
    titles = {table.name: table.title for table in tables}
    titles |= {name: project.figures[name]["title"] for name in drawn}
    scale = project.config["scale"]
    lines = [
        f"# Results at the {scale} scale",
        "",
        f"Written by `schnet summary` from the runs themselves. {project.scale['note'].strip()}",
        "",
        SEVERAL,
        "",
        _contents(titles),
        "",
        *_claims(project, tables),
    ]
    for table in tables:
        lines += _table(project, table, output)
    for name in drawn:
        lines += _figure(project, name, output)
    write_text(output, "\n".join(lines).rstrip() + "\n")
