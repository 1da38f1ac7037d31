"""What every architecture is made of: a table from the models themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from schnet.errors import ModelError
from schnet.files import write_text
from schnet.models import architectures, build
from schnet.tables.layout import Table
from schnet.tables.web import html_page
from schnet.tables.writers import markdown

NAME = "architectures"
HEADER = (
    "architecture",
    "embedding",
    "radial basis",
    "filter or message",
    "cutoff",
    "update",
    "readout",
    "parameters",
    "source",
)
CAPTION = (
    "What the architectures in schnet/models are made of, with the hyper-parameters that they have "
    "by default. Written by the models: schnet models --architectures."
)
NOTES = [
    "a ∘ b: product of two vectors element by element.",
    "Parameters are those of a model that was built, with vectors for 100 elements.",
]


def architectures_table() -> Table:
    """The table of all architectures, by name.

    Raises:
        ModelError: naming the file of an architecture that does not say what it is made of.
    """
    rows = [_row(name) for name in architectures()]
    title = "Components of the architectures"
    return Table(NAME, "", title, CAPTION, list(HEADER), rows, list(NOTES), [])


def _row(name: str) -> list[str]:
    model = build(name, {})
    try:
        parts = asdict(model.components())
    except ModelError as error:
        raise ModelError(f"schnet/models/{name}.py: {error}") from error
    source = parts.pop("source")
    return [name, *parts.values(), f"{model.n_parameters:,}", source]


def render_architectures(stem: str | Path) -> None:
    """Write the table as STEM.md and .html; its texts are too long for LaTeX's columns."""
    table = architectures_table()
    write_text(Path(f"{stem}.md"), markdown(table))
    write_text(Path(f"{stem}.html"), html_page(table))
