"""The report as a reader meets it."""

import base64
import csv
import re

import pytest
from finished_runs import finish, finish_all, open_project, rendered, runs_of

from schnet import provenance, report


@pytest.mark.parametrize(
    ("execution", "result", "hardware"),
    [
        ({"device": "cpu"}, {}, "a small CPU"),
        ({"device": "cuda"}, {}, "A big GPU"),
        ({"device": "cpu"}, {"hardware": "one of two CPUs"}, "one of two CPUs"),
    ],
)
def test_report_names_the_hardware_that_was_used(workflow, tmp_path, execution, result, hardware):
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_1", "U0", "schnet")[0]
    result = {"steps": 10, "training_seconds": 2.0, "peak_memory_mb": 7, "engine": "e"} | result
    finish(run, 0.1, execution=execution, result=result)
    report.render(project, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    line = re.search(f'<tr id="run-{re.escape(run.path)}">.*?</tr>', page)[0]
    assert f">{hardware}</td>" in line
    assert f"1 of {len(project.runs)} runs" in page and "Table III" in page


def test_links_lead_from_cells_to_runs_and_back(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "paper")
    finish_all(project, "table_1")
    finish_all(project, "table_5")
    report.render(project, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    names = re.findall(r"""\sid=["'](.*?)["']""", page)
    assert len(names) == len(set(names))
    links = set(re.findall(r"""href=["']#(.*?)["']""", page))
    assert links <= set(names)
    runs = [*project.runs_of("table_1"), *project.runs_of("table_5")]
    assert {f"run-{run.path}" for run in runs} <= links
    cells = {f"{n}/{c.row}/{c.column}" for n in ("table_1", "table_5") for c in project.cells[n]}
    assert cells <= links
    (line,) = re.findall(f'<tr id="run-{re.escape(runs[0].path)}">.*?</tr>', page)
    assert "<a href='#table_1/homo/schnet'>Table I</a>" in line


def test_report_needs_no_other_file(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    finish_all(project, "table_1")
    pictures = project.results / "figures"
    pictures.mkdir(parents=True)
    for suffix in ("png", "pdf", "csv"):
        (pictures / f"figure_3.{suffix}").write_bytes(b"content")
    report.render(project, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "name='viewport'" in page and "prefers-color-scheme" in page
    code = base64.b64encode(b"content").decode()
    assert f"<a download='figure_3.pdf' href='data:application/pdf;base64,{code}'>PDF</a>" in page
    table = re.search(r"download='table_1.csv' href='data:text/csv;base64,(.*?)'", page)[1]
    _, _, cells = rendered(project, "table_1", tmp_path)
    shown = list(csv.DictReader(base64.b64decode(table).decode().splitlines()))
    assert {(r["row"], r["column"]): r for r in shown} == cells
    about = provenance.collect()["git"]["commit"]
    assert about[:12] in page and provenance.hardware() in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.034, "0.034 s"), (3, "3 s"), (59.6, "60 s"), (600, "10 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text
