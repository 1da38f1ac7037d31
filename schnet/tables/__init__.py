"""Tables from the metrics of their runs and the printed numbers; no number of their own."""

from __future__ import annotations

from pathlib import Path

from schnet.files import write_json, write_text
from schnet.project import Project
from schnet.tables.architectures import architectures_table, render_architectures
from schnet.tables.cells import Entry, Printed, entries, published
from schnet.tables.latex import latex
from schnet.tables.layout import Table, grid, make_table
from schnet.tables.notes import footnotes
from schnet.tables.web import html_page
from schnet.tables.writers import csv_text, json_content, markdown
from schnet.workflow import known_or_nearest

__all__ = [
    "Entry",
    "Printed",
    "Table",
    "architectures_table",
    "entries",
    "footnotes",
    "grid",
    "make_table",
    "published",
    "render",
    "render_architectures",
]


def render(project: Project, name: str, stem: str | Path) -> Table:
    """Write a table as STEM.csv, .md, .tex, .html and .json.

    Args:
        project: the resolved configuration.
        name: of a file in workflow/experiments.
        stem: path without suffix; dots in it are kept.

    Returns:
        The table that was written.

    Raises:
        ConfigError: no such experiment, or metrics or printed numbers that do not fit it.
    """
    known_or_nearest(name, project.experiments, "experiment", "workflow/experiments")
    table = make_table(project, name)
    stem = Path(stem)

    def path(suffix: str) -> Path:
        return stem.with_name(stem.name + suffix)

    write_text(path(".csv"), csv_text(table))
    write_text(path(".md"), markdown(table))
    write_text(path(".tex"), latex(table))
    write_text(path(".html"), html_page(table))
    write_json(path(".json"), json_content(table))
    return table
