"""Tables, report, comparison and plan as a reader meets them."""

import base64
import csv
import json
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from conftest import ROOT

from schnet import plan, provenance, report, summary, tables
from schnet.compare import compare, pairs
from schnet.data import census
from schnet.data.fetch import fetch_file
from schnet.errors import ConfigError, DataError, SchNetError
from schnet.figures import cost
from schnet.files import read_yaml, write_json, write_yaml
from schnet.project import load_project
from schnet.tables.writers import latex_text, markdown
from schnet.units import factor


@pytest.fixture
def workflow(tmp_path):
    """A copy of the workflow's files, to be changed by the test."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    shutil.copy(ROOT / "config.yaml", folder)
    return folder


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


# ---- printed numbers -----------------------------------------------------------------------------
def test_printed_numbers_are_the_papers():
    folder = ROOT / "workflow" / "published"
    t1, t3, t4, t5 = (tables.published(folder / f"table_{k}.csv") for k in (1, 3, 4, 5))
    assert t1["r2", "schnet"] == tables.Printed("0.073", "0.002", "Bohr^2")
    assert t1["gap", "schnet"].text == "0.063 ± 0.000"
    assert t1["U0", "schnet"].error == 0.001 and t1["U0", "enn_s2s"].error is None
    assert t3["ethanol", "both_1000"].text == "0.08"
    assert t3["aspirin", "energy_1000"].text == "4.20"
    assert t3["benzene", "dtnn"].number == 0.04
    assert t4["ethanol", "both_50000"].text == "0.05" and t4["malonaldehyde", "gdml"].text == "0.80"
    assert t5["T6_F128_rho0.01", "energy"].text == "0.1002"
    assert t5["T6_F128_rho0.01", "forces"].text == "0.120"
    assert t5["T6_F128_rho0", "energy"].text == "0.260"


def test_printed_digits_reach_every_format(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    markdown, latex, cells = rendered(project, "table_5", tmp_path)
    assert cells["T6_F128_rho0.01", "forces"]["printed"] == "0.120"
    assert "| 0.120 |" in markdown and "& 0.260 &" in latex
    _, _, cells = rendered(project, "table_1", tmp_path)
    assert cells["lumo", "schnet"]["printed_error"] == "0.000"


def test_units_of_table_1():
    assert 0.073 * factor("Å^2", "Bohr^2") == pytest.approx(0.26, abs=0.002)
    with pytest.raises(ValueError, match="cannot convert"):
        factor("eV", "Debye")


@pytest.mark.parametrize("changed", ["published", "experiment"])
def test_a_cell_has_one_unit(workflow, tmp_path, changed):
    """Measured, printed, difference and label stay in one unit when the two files differ."""
    experiment = workflow / "workflow" / "experiments" / "table_1.yaml"
    printed = workflow / "workflow" / "published" / "table_1.csv"
    if changed == "published":
        text = printed.read_text().replace("zpve,schnet,1.7,0.033,meV", "zpve,schnet,0.0017,,eV")
        printed.write_text(text)
        unit, measured, paper, difference = "meV", "1.50", "1.70", "-0.2"
    else:
        experiment.write_text(experiment.read_text().replace("unit: meV", "unit: eV"))
        unit, measured, paper, difference = "eV", "0.00150", "0.00170 ± 0.00003", "-0.0002"
    project = open_project(workflow, tmp_path)
    for run in runs_of(project, "table_1", "zpve", "schnet"):
        finish(run, 1.5, "meV")
    markdown, _, cells = rendered(project, "table_1", tmp_path)
    _, shown_unit, *numbers = line_of(markdown, "ZPVE")
    assert (shown_unit, numbers[0], numbers[2]) == (unit, measured, difference)
    assert numbers[1].startswith(paper[:7].strip())
    cell = cells["zpve", "schnet"]
    assert cell["unit"] == unit
    assert float(cell["measured"]) == pytest.approx(float(measured))
    assert float(cell["difference"]) == pytest.approx(
        float(cell["measured"]) - float(cell["printed"])
    )


def test_a_printed_number_of_another_quantity_is_refused(workflow, tmp_path):
    printed = workflow / "workflow" / "published" / "table_1.csv"
    printed.write_text(
        printed.read_text().replace("mu,schnet,0.033,0.001,Debye", "mu,schnet,1,,eV")
    )
    with pytest.raises(ConfigError, match=r"table_1.csv: mu, schnet: cannot convert eV"):
        tables.make_table(open_project(workflow, tmp_path), "table_1")


# ---- measured numbers ----------------------------------------------------------------------------
def test_table_with_means_errors_units_and_missing_runs(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "paper")
    for run, mae in zip(runs_of(project, "table_1", "zpve", "schnet"), (0.2, 0.4), strict=False):
        finish(run, mae, "meV", raw=2 * mae)
    radius = runs_of(project, "table_1", "r2", "schnet")[0]
    finish(radius, 1.0, "Bohr^2")
    markdown, _, cells = rendered(project, "table_1", tmp_path)
    zpve = cells["zpve", "schnet"]
    assert float(zpve["measured"]) == pytest.approx(0.3)
    assert float(zpve["standard_error"]) == pytest.approx(0.1)
    assert float(zpve["difference"]) == pytest.approx(0.3 - 1.7)
    assert float(zpve["raw_weights"]) == pytest.approx(0.6)
    assert (zpve["missing"], zpve["data"]) == ("2 of 3 runs there", "0123456789ab")
    assert cells["homo", "schnet"]["measured"] == ""
    assert cells["homo", "schnet"]["printed"] == "0.041"
    assert cells["homo", "enn_s2s"]["measured"] == "" and cells["homo", "enn_s2s"]["printed"]
    # 1 Bohr² in Å², beside the printed digits read in Å²
    _, unit, measured, printed, *_ = line_of(markdown, "⟨R²⟩, if printed in Å^2")
    assert (unit, measured, printed) == ("Å^2", "0.280", "0.073 ± 0.002")
    assert "Missing, 2 of 3 runs there: zpve/schnet" in markdown
    assert "A measured value without ± is of one run: no standard error." in markdown
    assert "Trained here: qm9: N = 110,000, 10 steps." in markdown
    page = (tmp_path / "rendered" / "table_1.html").read_text()
    assert f'href="../report.html#run-{radius.path}"' in page
    content = json.loads((tmp_path / "rendered" / "table_1.json").read_text())
    cell = next(c for c in content["cells"] if c["row"] == "r2")
    assert cell["runs"] == [radius.path]


def test_a_column_can_show_the_weights_of_single_steps(workflow, tmp_path):
    """Where few steps make an average over many of little use."""
    project = open_project(workflow, tmp_path)
    (run,) = runs_of(project, "architectures_qm9", "physnet", "U0")
    finish(run, 0.5, "eV", raw=0.2, deviation=10.0)
    (other,) = runs_of(project, "architectures_qm9", "fully_connected", "U0")
    finish(other, 0.7, "eV")  # of one set of weights
    markdown, _, cells = rendered(project, "architectures_qm9", tmp_path)
    assert [cells[k, "U0"]["measured"] for k in ("physnet", "fully_connected")] == ["0.2", "0.7"]
    assert cells["physnet", "U0"]["raw_weights"] == ""
    assert "U0: errors of the weights of single steps" in markdown
    assert cost.points(project, project.figures["accuracy_against_cost"])["mae"][0] == 0.2


def finish_member(run, energies, forces, index=(3, 5), seconds=2.0):
    """A finished run with predictions of two structures, one and two atoms; true values are 0."""
    result = {"steps": 10, "training_seconds": seconds}
    finish(run, float(np.abs(energies).mean()), "kcal/mol", "energy", raw=9.0, result=result)
    metrics = json.loads(run.metrics_file.read_text())
    mae = float(np.abs(forces).mean())
    metrics["parts"]["test"]["forces"] = {"mae": mae, "rmse": mae, "unit": "kcal/mol/Å", "n": 9}
    write_json(run.metrics_file, metrics)
    with h5py.File(run.predictions_file, "w") as h5:
        group = h5.create_group("test")
        group["index"] = index
        for prefix, values in (("", energies), ("forces_", forces)):
            group[f"{prefix}predicted"] = np.array(values, float)
            group[f"{prefix}true"] = np.zeros_like(group[f"{prefix}predicted"])


def test_a_committee_is_the_error_of_the_mean_prediction(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    a, b, c = runs_of(project, "committee_md17", "toluene", "committee_forces")
    force = np.array([[3, 0, 0], [0, -3, 0], [0, 0, 6]])
    finish_member(a, [1.0, -1.0], force)
    finish_member(b, [2.0, 4.0], -force)
    finish_member(c, [-3.0, 3.0], force, seconds=3.0)
    markdown, _, cells = rendered(project, "committee_md17", tmp_path)
    # mean predictions: (0, 2) for energies, a third of the force for forces
    assert float(cells["toluene", "committee_energy"]["measured"]) == pytest.approx(1.0)
    assert float(cells["toluene", "committee_forces"]["measured"]) == pytest.approx(4 / 9, abs=1e-6)
    # single models: mean absolute errors 1, 3 and 3
    single = cells["toluene", "single_energy"]
    assert float(single["measured"]) == pytest.approx(7 / 3, abs=1e-5)
    assert float(single["standard_error"]) == pytest.approx(2 / 3, abs=1e-5)
    together = cells["toluene", "committee_energy"]
    assert (together["standard_error"], together["raw_weights"], together["repeats"]) == (
        "",
        "",
        "3",
    )
    seeds = "energy: single model; forces: single model: mean and standard error over models that"
    assert f"{seeds} differ in seed alone" in markdown
    assert "the mean of the predictions of 3 models that differ in seed alone" in markdown
    assert "Core-seconds of training a whole committee: 7 for toluene" in markdown
    assert "One run behind" not in markdown and "is of one run" not in markdown


def test_a_committee_waits_for_all_its_members(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    a, b, _ = runs_of(project, "committee_md17", "toluene", "committee_forces")
    finish_member(a, [1.0, -1.0], np.ones((3, 3)))
    finish_member(b, [1.0, -1.0], np.ones((3, 3)))
    _, _, cells = rendered(project, "committee_md17", tmp_path)
    assert cells["toluene", "single_energy"]["measured"] == "1"
    cell = cells["toluene", "committee_energy"]
    assert (cell["measured"], cell["missing"]) == ("", "2 of 3 runs there")


@pytest.mark.parametrize(
    "damage", ["other structures", "no forces", "other values", "too few", "no file"]
)
def test_predictions_that_make_no_committee_are_refused(workflow, tmp_path, damage):
    project = open_project(workflow, tmp_path)
    members = runs_of(project, "committee_md17", "toluene", "committee_forces")
    for run in members:
        finish_member(run, [1.0, -1.0], np.ones((3, 3)))
    message = "no predictions of (energy|forces) for part 'test'; delete it to evaluate"
    if damage == "other structures":
        finish_member(members[2], [1.0, -1.0], np.ones((3, 3)), index=(3, 6))
        message = "other structures in part 'test' than in .*members of a committee share a split"
    elif damage == "no forces":
        with h5py.File(members[2].predictions_file, "a") as h5:
            del h5["test/forces_predicted"]
    elif damage == "other values":
        with h5py.File(members[2].predictions_file, "a") as h5:
            h5["test/predicted"][0] += 1e4
        message = "its mean error of energy is 5001, that in .*metrics.json 1.0; delete both"
    elif damage == "too few":
        with h5py.File(members[2].predictions_file, "a") as h5:
            del h5["test/forces_predicted"]
            h5["test/forces_predicted"] = np.ones((2, 3))
    else:
        members[2].predictions_file.unlink()
    with pytest.raises(DataError, match=message) as error:
        tables.make_table(project, "committee_md17")
    assert str(members[2].predictions_file) in str(error.value)


def test_printed_numbers_of_another_document_are_called_by_its_name(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    for run in project.runs_of("sgdr_qm9"):
        finish(run, 0.02, {"U0": "eV", "mu": "Debye"}[run.settings.target])
    markdown, _, cells = rendered(project, "sgdr_qm9", tmp_path)
    header = line_of(markdown, "Property")
    assert "printed" in header and "paper" not in header
    assert (cells["U0", "sgdr"]["measured"], cells["U0", "sgdr"]["printed"]) == ("20", "9.5")
    assert cells["mu_dipole", "sgdr"]["printed"] == "0.017"
    assert cells["mu", "sgdr"]["printed"] == cells["U0", "usual"]["printed"] == ""


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


def test_a_method_without_steps_is_rendered_everywhere(workflow, tmp_path):
    write_methods_table(workflow)
    project = open_project(workflow, tmp_path)
    finish(runs_of(project, "methods", "schnet", "mae")[0], 0.5)
    run = runs_of(project, "methods", "mean", "mae")[0]
    finish(run, 10.0, result={"seconds": 3.0, "hardware": "the CPU", "n_train": 10000})
    markdown, _, cells = rendered(project, "methods", tmp_path)
    assert cells["mean", "mae"]["measured"] == "10"
    trained = "Trained here: qm9: N = 10,000, 10 steps; qm9 (mean): N = 10,000."
    assert trained in markdown
    report.render(project, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    line = re.search(f'<tr id="run-{re.escape(run.path)}">.*?</tr>', page)
    texts = re.findall("<td.*?>(.*?)</td>", line[0])
    assert texts[2:8] == ["–", "3 s", "–", "–", "mean", "the CPU"]


def test_metrics_that_do_not_have_what_a_cell_shows(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    finish(runs_of(project, "table_1", "U0", "schnet")[0], quantity="other")
    with pytest.raises(ConfigError, match=r"metrics.json: no 'U0' for part 'test'; it has other"):
        tables.make_table(project, "table_1")


def test_unknown_table(workflow, tmp_path):
    with pytest.raises(ConfigError, match="no experiment 'table_9'; did you mean 'table_"):
        tables.render(open_project(workflow, tmp_path), "table_9", tmp_path / "t")


def test_demo_numbers_stand_beside_no_difference(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "demo")
    for run in project.runs_of("table_3"):
        finish(run, 1.0, "kcal/mol", "energy")
    markdown, _, cells = rendered(project, "table_3", tmp_path)
    assert "never to be compared" in markdown and "difference" not in markdown
    cell = cells["ethanol", "both_1000"]
    assert (cell["measured"], cell["printed"], cell["difference"]) == ("1", "0.08", "")
    project = open_project(workflow, tmp_path, "small")
    finish(runs_of(project, "table_3", "ethanol", "both_1000")[0], 1.0, "kcal/mol", "energy")
    markdown, _, cells = rendered(project, "table_3", tmp_path)
    assert "difference" in markdown
    assert cells["ethanol", "both_1000"]["difference"] == "0.92"


def test_a_scan_is_a_table_that_shares_its_runs(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "demo")
    elsewhere = {r.path for n in project.experiments if n != "ablation" for r in project.runs_of(n)}
    runs = project.runs_of("ablation")
    assert elsewhere & {r.path for r in runs} and len({r.path for r in runs} - elsewhere) <= 8
    for run in runs:
        unit = "eV" if run.dataset == "qm9" else "eV/atom"
        finish(run, 1 / run.settings.model.get("n_features", 64), unit)
    markdown, _, cells = rendered(project, "ablation", tmp_path)
    assert line_of(markdown, "Crystals: not divided")[1:] == ["eV/atom", "0.0156 ± 0.0000"]
    assert float(cells["model.n_features=16", "mae"]["measured"]) == pytest.approx(1 / 16, 1e-5)
    assert line_of(markdown, "QM9: F = 16")[-1] == "0.0625 ± 0.0000"
    assert line_of(markdown, "QM9: T = 3")[-1] == line_of(markdown, "QM9: F = 64")[-1]


# ---- derived rows --------------------------------------------------------------------------------
def write_derived_table(workflow, **std_mae):
    """Two properties, one extension and the two summaries, for a computed and a quoted column."""
    experiment = {
        "title": "Summaries",
        "caption": "Two properties and what sums them up.",
        "published": "summaries.csv",
        "printed_in": "a test",
        "run": {"dataset": "qm9", "n_train": 110000},
        "rows": [
            {"key": "U0", "label": "U0", "unit": "meV", "run": {"target": "U0"}},
            {"key": "mu", "label": "μ", "unit": "Debye", "run": {"target": "mu"}},
            {"key": "more", "label": "α", "extension": True, "run": {"target": "alpha"}},
            {"key": "std", "label": "std. MAE", "derived": "std_mae"} | std_mae,
            {"key": "log", "label": "logMAE", "derived": "log_mae"},
        ],
        "columns": [
            {"key": "schnet", "label": "SchNet"},
            {"key": "dtnn", "label": "DTNN", "run": {"architecture": "dtnn"}},
            {"key": "other", "label": "other", "quoted": True},
        ],
    }
    write_yaml(workflow / "workflow" / "experiments" / "summaries.yaml", experiment)
    lines = ["row,column,value,uncertainty,unit"]
    lines += ["std,schnet,11,,%", "std,other,1.84,,%", "log,other,-4.64,,"]
    text = "\n".join(lines) + "\n"
    (workflow / "workflow" / "published" / "summaries.csv").write_text(text)


def test_derived_rows_by_hand(workflow, tmp_path):
    """MAE / σ of 0.5 / 10 and 0.3 / 1.5: mean 12.5 %, mean logarithm ln(0.05 · 0.2) / 2."""
    write_derived_table(workflow)
    project = open_project(workflow, tmp_path)
    energy = runs_of(project, "summaries", "U0", "schnet")[0]
    finish(energy, 0.5, deviation=10.0)
    finish(runs_of(project, "summaries", "mu", "schnet")[0], 0.3, "Debye", deviation=1.5)
    finish(runs_of(project, "summaries", "U0", "dtnn")[0], 0.5)
    markdown, latex, cells = rendered(project, "summaries", tmp_path)
    assert float(cells["std", "schnet"]["measured"]) == pytest.approx(12.5)
    assert float(cells["log", "schnet"]["measured"]) == pytest.approx(np.log(0.1), rel=1e-5)
    assert float(cells["std", "schnet"]["difference"]) == pytest.approx(1.5)
    assert cells["std", "schnet"]["derived"] == "std_mae"
    assert cells["std", "schnet"]["data"] == cells["U0", "schnet"]["data"] != ""
    _, unit, here, printed, difference, *dtnn, other = line_of(markdown, "std. MAE")
    assert [unit, here, printed, difference, other] == ["%", "12.5", "11", "+1.5", "1.84"]
    assert dtnn == ["–"] and line_of(markdown, "logMAE")[1:3] == ["", "-2.30"]
    # what is missing is said, and quoted columns are not computed
    assert "Missing, it needs a value of mu: std/dtnn; log/dtnn." in markdown
    assert cells["std", "dtnn"]["measured"] == cells["std", "other"]["measured"] == ""
    assert "quoted from a test; they are not computed here." in markdown and "printed" in latex
    content = json.loads((tmp_path / "rendered" / "summaries.json").read_text())
    cell = next(c for c in content["cells"] if (c["row"], c["column"]) == ("log", "schnet"))
    assert len(cell["runs"]) == 2 and energy.path in cell["runs"]


def test_a_derived_row_without_standard_deviations_says_so(workflow, tmp_path):
    """Runs that were evaluated by earlier versions have none."""
    write_derived_table(workflow)
    project = open_project(workflow, tmp_path)
    finish(runs_of(project, "summaries", "U0", "schnet")[0], 0.5)
    finish(runs_of(project, "summaries", "mu", "schnet")[0], 0.3, "Debye", deviation=1.5)
    markdown, _, cells = rendered(project, "summaries", tmp_path)
    assert "needs the standard deviation of U0" in cells["log", "schnet"]["missing"]
    assert "`schnet evaluate` writes it" in markdown
    assert cells["log", "schnet"]["measured"] == "" and cells["U0", "schnet"]["measured"] == "500"


@pytest.mark.parametrize("key", ["unit", "run", "quoted"])
def test_what_has_no_effect_on_a_derived_row_is_refused(workflow, tmp_path, key):
    write_derived_table(workflow, **{key: {"unit": "%", "run": {}, "quoted": True}[key]})
    with pytest.raises(ConfigError, match=rf"summaries.yaml: rows std: {key}: a derived row has"):
        open_project(workflow, tmp_path)


def test_derived_rows_of_nothing_are_refused(workflow, tmp_path):
    write_derived_table(workflow)
    path = workflow / "workflow" / "experiments" / "summaries.yaml"
    experiment = read_yaml(path)
    write_yaml(path, experiment | {"rows": experiment["rows"][-2:]})
    with pytest.raises(ConfigError, match="rows: derived ones need a row"):
        open_project(workflow, tmp_path)


def test_derived_rows_take_no_unit_of_a_column(workflow, tmp_path):
    write_derived_table(workflow)
    path = workflow / "workflow" / "experiments" / "summaries.yaml"
    path.write_text(path.read_text().replace("label: SchNet", "label: SchNet\n  unit: eV"))
    with pytest.raises(ConfigError, match="columns schnet: unit: that of the row std differs"):
        open_project(workflow, tmp_path)


def test_the_comparison_shares_its_runs(workflow, tmp_path):
    """At the demo scale SchNet's column is Table I's, and the slow models have one property."""
    project = open_project(workflow, tmp_path, "demo")
    elsewhere = {
        r.path for n in project.experiments if n != "qm9_comparison" for r in project.runs_of(n)
    }
    runs = project.runs_of("qm9_comparison")
    assert [r.settings.architecture for r in runs if r.path not in elsewhere] == ["dimenet"]
    for run in runs:
        cell = next(c for c in project.cells["qm9_comparison"] if run in c.runs)
        unit = {"meV": "eV"}.get(cell.unit, cell.unit)
        finish(run, 0.1, unit, deviation=2.0)
    markdown, _, cells = rendered(project, "qm9_comparison", tmp_path)
    assert float(cells["std_mae", "schnet"]["measured"]) == pytest.approx(5)
    assert float(cells["log_mae", "schnet"]["measured"]) == pytest.approx(np.log(0.05), rel=1e-5)
    assert cells["homo", "physnet"]["missing"] == "left out at the scale demo"
    assert cells["U", "cormorant"]["printed"] == "" and cells["U0", "cormorant"]["printed"] == "28"
    assert "Missing, it needs a value of mu, alpha, homo" in markdown


# ---- notes ---------------------------------------------------------------------------------------
def test_notes_say_what_the_data_are(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    slices = {"file": "e.npz", "checksum_from": "mirror", "notes": ["Labels are revised."]}
    run = runs_of(project, "table_3", "ethanol", "both_1000")[0]
    finish(run, 0.1, "kcal/mol", "energy", data=sources(slices))
    run = runs_of(project, "table_3", "uracil", "both_1000")[0]
    finish(run, 0.1, "kcal/mol", "energy", data=sources(slices | {"file": "u.npz"}))
    notes = tables.make_table(project, "table_3").notes
    assert notes[0] == project.scale["note"].strip()
    mirrored = [n for n in notes if n.startswith("Data from a mirror")]
    assert len(mirrored) == 1 and mirrored[0].endswith("e.npz, u.npz.")
    assert notes.count("Labels are revised.") == 1
    assert "Not like for like: the printed numbers belong to the upstream data." in notes
    assert "One run behind every measured value: no standard error." in notes


def test_mirrored_files_that_cannot_be_compared_with_upstream(workflow, tmp_path):
    """Without a published checksum nothing is claimed, unless counting shows a slice."""
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_3", "ethanol", "both_1000")[0]
    records = sources({"file": "e.npz", "checksum_from": "mirror", "upstream": None})
    whole = {census.STRUCTURES: 555092, census.PUBLISHED: 555092}
    finish(run, 0.1, "kcal/mol", "energy", data=records | {"notes": whole})
    notes = tables.make_table(project, "table_3").notes
    assert [n for n in notes if n.endswith("publishes none to compare with: e.npz.")]
    assert not [n for n in notes if n.startswith(("Not like for like", "Structures here"))]
    finish(run, 0.1, "kcal/mol", "energy", data=records | {"notes": whole | {census.STRUCTURES: 9}})
    notes = tables.make_table(project, "table_3").notes
    slices = "Structures here, of those published upstream: MD17 ethanol 9 of 555,092."
    assert slices in notes and [n for n in notes if n.startswith("Not like for like")]


@pytest.mark.parametrize("by_hand", [False, True])
def test_files_without_any_checksum_are_named(workflow, tmp_path, by_hand):
    """Nobody published one, and neither did the mirror: only its holder says what the file is."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "e.npz").write_bytes(b"content")
    folder = tmp_path / "m" if by_hand else tmp_path / "raw"
    mirror = None if by_hand else str(tmp_path / "m")
    record = fetch_file("e.npz", {"urls": [], "mirror": "e.npz"}, folder, mirror=mirror)
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_3", "ethanol", "both_1000")[0]
    finish(run, 0.1, "kcal/mol", "energy", data=sources(record))
    notes = tables.make_table(project, "table_3").notes
    assert [n for n in notes if n.endswith("with no checksum to compare with: e.npz.")]


def test_upstream_data_are_like_for_like(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_3", "ethanol", "both_1000")[0]
    finish(run, 0.1, "kcal/mol", "energy")
    notes = tables.make_table(project, "table_3").notes
    assert not [n for n in notes if n.startswith(("Data from a mirror", "Not like for like"))]


def test_claims_of_the_paper_beside_what_was_measured(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    errors = {"T3_F64_rho0.01": 5, "T6_F64_rho0.01": 4, "T3_F128_rho0.01": 3, "T6_F128_rho0.01": 2}
    for row, error in errors.items():
        (run,) = runs_of(project, "table_5", row, "energy")
        finish(run)
        metrics = json.loads(run.metrics_file.read_text())
        metrics["parts"]["test"] = {
            "energy": {"mae": error, "rmse": error, "n": 9, "unit": "kcal/mol"},
            "forces": {"mae": 7 - error, "rmse": 9, "n": 9, "unit": "kcal/mol/Å"},
        }
        write_json(run.metrics_file, metrics)
    notes = tables.make_table(project, "table_5").notes
    claims = [note for note in notes if note.startswith("Paper: ")]
    assert claims[0] == (
        "Paper: T=6 and F=128 work best for energies and forces. Here: yes (random split: energy); "
        "no (random split: forces); cannot be said (split by trajectory: energy, split by "
        "trajectory: forces)."
    )
    assert len(claims) == 3 and "Here: cannot be said (random split: energy, " in claims[1]
    # the same, one by one, on a page with all tables and figures that there are
    picture = project.results / "figures" / "figure_9.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    summary.render(project, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    text = "T=6 and F=128 work best for energies and forces."
    compared = "T=6, F=128, ρ=0.01 against T=3, F=128, ρ=0.01: random split: energy"
    assert f"| Table V | {text} | in part | **yes**: {compared} 2.00 / 3.00 kcal/mol; " in page
    compared = "T=6, F=128, ρ=0.01 against T=3, F=64, ρ=0.01: random split: forces"
    assert f"; **no**: {compared} 5.00 / 2.00 kcal/mol/Å; " in page
    assert (
        "; **cannot be said**: split by trajectory: energy, split by trajectory: forces |" in page
    )
    assert page.count("## ") == 3 and f"]({picture.relative_to(tmp_path)})" in page
    assert page.count(project.scale["note"].strip()) == 1
    file = workflow / "workflow/experiments/table_5.yaml"
    experiment = read_yaml(file)
    experiment["claims"][0]["among"] = ["T3_F46_rho0.01"]
    write_yaml(file, experiment)
    with pytest.raises(ConfigError, match=r"table_5.yaml: claim .*'T3_F46.*T3_F64_rho0.01"):
        open_project(workflow, tmp_path)


def test_a_claim_may_be_about_factors(workflow, tmp_path):
    """T = 6 against T = 2: by 2, 1.4 and 1.3 for ever more molecules."""
    project = open_project(workflow, tmp_path)
    errors = {"n25000": (6, 3), "n50000": (3.64, 2.6), "n110000": (1.3, 1)}
    for row, pair in errors.items():
        for column, error in zip(("T2", "T6"), pair, strict=True):
            finish(runs_of(project, "learning_curves_qm9", row, column)[0], error, "eV", "U0")
    notes = tables.make_table(project, "learning_curves_qm9").notes
    claim = next(note for note in notes if "become more significant" in note)
    assert claim.endswith(
        "Here: yes (N = 25,000 (here 2,500)); too close to say (N = 50,000 (here 5,000))."
    )
    summary.render(project, tmp_path / "page.md")
    compared = (
        "T=6 against T=2: N = 25,000 (here 2,500) a factor of 2.00, N = 110,000 (here 10,000): 1.30"
    )
    assert compared in (tmp_path / "page.md").read_text()

    file = workflow / "workflow/experiments/learning_curves_qm9.yaml"
    experiment = read_yaml(file)
    experiment["claims"][1]["more_than"] = "n11000"
    write_yaml(file, experiment)
    with pytest.raises(ConfigError, match=r"learning_curves_qm9.yaml: claim .*'n11000'.*'n110000'"):
        open_project(workflow, tmp_path)


def test_notes_count_verified_runs(workflow, tmp_path):
    project = open_project(workflow, tmp_path)

    def note():
        notes = tables.make_table(project, "table_3").notes
        return [n for n in notes if "verified" in n]

    assert note() == []
    runs = [runs_of(project, "table_3", "ethanol", k)[0] for k in ("both_1000", "energy_1000")]
    for run in runs:
        finish(run, 0.1, "kcal/mol", "energy")
    here = "verified with the code at hand (schnet verify)"
    assert note() == [f"None of 2 runs has been {here}."]
    found = {"code": provenance.code(), "ok": True, "files": {}}
    write_json(runs[0].folder / "verified.json", found | {"code": {"models": "other"}})
    assert note() == [f"None of 2 runs has been {here}."]
    write_json(runs[0].folder / "verified.json", found)
    alone = "; of 1 of them, whose models were not kept, the first steps alone"
    assert note() == [f"1 of 2 runs were {here}{alone}."]
    runs[0].model_file.touch()
    assert note() == [f"1 of 2 runs were {here}."]
    write_json(runs[1].folder / "verified.json", found | {"ok": False})
    assert note() == [f"1 of 2 runs were {here}; 1 did not come out with the same numbers."]


def test_whole_rows_and_columns_that_are_missing_have_their_labels(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    for row in ("ethanol", "aspirin"):
        finish(runs_of(project, "table_4", row, "both_1000")[0], 0.1, "kcal/mol/Å", "forces")
    finish(runs_of(project, "table_4", "ethanol", "energy_1000")[0], 1, "kcal/mol/Å", "forces")
    markdown, _, _ = rendered(project, "table_4", tmp_path)
    assert (
        "- Missing, N = 50,000 is not part of the scale small: all of N = 50,000: SchNet, energy; "
        "all of N = 50,000: SchNet, energy+forces."
    ) in markdown
    assert "- Missing, 1 of 3 runs there: aspirin/both_1000; ethanol/both_1000." in markdown
    absent = next(x for x in markdown.splitlines() if x.startswith("- Missing, 0 of 1 runs there"))
    assert "benzene/energy_1000; " in absent and absent.endswith("; naphthalene/energy_1000.")
    assert (
        "- Missing, 0 of 1 runs there: all cells."
        in rendered(open_project(workflow, tmp_path, "paper"), "table_5", tmp_path)[0]
    )


def test_empty_columns_are_folded_away(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    finish(runs_of(project, "table_4", "ethanol", "both_1000")[0], 0.1, "kcal/mol/Å", "forces")
    markdown, _, cells = rendered(project, "table_4", tmp_path)
    heads = line_of(markdown, "Molecule")[1:]
    title = "N = 1,000, SchNet, energy"
    assert heads[:5] == [
        "N = 1,000, GDML, forces, paper",
        f"{title}, paper",
        f"{title}+forces, here",
        "paper",
        "difference",
    ]
    assert line_of(markdown, "Ethanol")[1:6] == ["0.79", "6.56", "0.100", "0.39", "-0.29"]
    assert len(cells) == 40  # the CSV file has all of them


def test_a_caption_says_what_stands_for_the_sizes_of_the_paper(workflow, tmp_path):
    def caption(scale):
        return tables.make_table(open_project(workflow, tmp_path, scale), "table_1").caption

    assert caption("demo").endswith(
        "Training structures at this scale: 75 in place of N = 110,000."
    )
    assert "at this scale" not in caption("paper")


# ---- LaTeX ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Å^2 of data_set", r"\AA{}$^{2}$ of data\_set"),
        ("ε_HOMO, C_v", r"$\epsilon$$_{\mathrm{HOMO}}$, C$_{\mathrm{v}}$"),
        ("my_data.npz a_b/c", r"my\_data.npz a\_b/c"),
        ("-0.1 of 10-20, +3", r"$-$0.1 of 10-20, +3"),
        ("a^b ~ c", r"a\textasciicircum{}b \textasciitilde{} c"),
        ("\\x {y} $z$", r"\textbackslash{}x \{y\} \$z\$"),
        ("R&D 5 % #1", r"R\&D 5 \% \#1"),
        ("kcal/mol/Å ± 0.1", r"kcal/mol/\AA{} $\pm$ 0.1"),
        ("10^-3 Å⁻²", r"10$^{-3}$ \AA{}$^{-2}$"),
    ],
)
def test_latex_text(text, expected):
    assert latex_text(text) == expected


def test_latex_of_every_table_is_escaped(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "demo")
    for name in project.experiments:
        _, latex, _ = rendered(project, name, tmp_path)
        # ASCII and Latin letters are what every font has
        assert r"\toprule" in latex and not re.search("[^\x00-\x7fÀ-ÄÆ-Öà-äæ-öø-ÿß]", latex)
        # outside mathematics every special character has its backslash
        text = re.sub(r"\$[^$]*\$", "", latex.split("\n", 1)[1])
        assert not re.search(r"(?<!\\)[_^#%~$]", text)
        assert text.count("{") == text.count("}")


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


def test_latex_heads_span_their_columns(workflow, tmp_path):
    project = open_project(workflow, tmp_path, "paper")
    finish_all(project, "table_3")
    _, latex, _ = rendered(project, "table_3", tmp_path)
    lines = latex.splitlines()
    columns = len(re.search(r"begin{tabular}{(\w+)}", latex)[1])
    for line in lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]:
        if line.endswith(r" \\"):
            inner = re.sub(r"\\begin{tabular}.*?\\end{tabular}", "", line)
            spans = [int(n) for n in re.findall(r"multicolumn{(\d+)}", inner)]
            assert sum(spans) + inner.count("&") + 1 - len(spans) == columns
    assert r"\multicolumn{9}{c}{N = 1,000} & \multicolumn{9}{c}{N = 50,000} \\" in latex
    assert r"\label{tab:table-3}" in latex and "$-$0.0" in latex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(workflow, tmp_path):
    """Every table fits the page of the article class, in width and in height."""
    project = open_project(workflow, tmp_path, "paper")
    page = [r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"]
    for name in project.experiments:
        finish_all(project, name)
        _, latex, _ = rendered(project, name, tmp_path)
        page += [latex, r"\clearpage"]
    (tmp_path / "page.tex").write_text("\n".join([*page, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert not re.findall("Overfull .*|.*too large for page.*", log)


# ---- report --------------------------------------------------------------------------------------
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


# ---- schnet compare ------------------------------------------------------------------------------
def write_tables(folder, *cells):
    folder.mkdir()
    lines = [f"x,y{k},{value},{data}" for k, (value, data) in enumerate(cells)]
    text = "\n".join(["row,column,measured,data", *lines, "z,y,,"])
    (folder / "table_1.csv").write_text(text + "\n")
    return folder


def test_compare_with_a_relative_tolerance(tmp_path, capsys):
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (-2.0, "d2"))
    compare(committed, write_tables(tmp_path / "b", (1.04, "d1"), (-2.0, "d2")), 0.05)
    assert capsys.readouterr().out == "2 cells of 1 tables agree within 5 %\n"
    far = write_tables(tmp_path / "c", (1.06, "d1"), (-2.0, "d2"))
    with pytest.raises(SchNetError, match=r"1 problems in 2 cells.*\n.* x, y0: 1\.06, was 1 \(5 %"):
        compare(committed, far, 0.05)
    compare(committed, far, 0.1)
    with pytest.raises(SchNetError, match="y1: missing, was -2"):
        compare(committed, write_tables(tmp_path / "d", (1.0, "d1")), 0.05)
    with pytest.raises(SchNetError, match="nan, was 1"):
        compare(committed, write_tables(tmp_path / "e", ("nan", "d1"), (-2.0, "d2")), 0.05)


def test_compare_allows_a_factor_for_data_made_elsewhere(tmp_path, capsys):
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (2.0, "d2"))
    compare(committed, write_tables(tmp_path / "b", (1.01, "d1"), (9.0, "other")), 0.05, 5)
    out = capsys.readouterr().out
    assert "1 cells of 1 tables agree within 5 %" in out
    assert "1 cells agree within a factor of 5" in out and "another kind of processor" in out
    with pytest.raises(SchNetError, match=r"y1: 11, was 2 \(a factor of 5, from other data"):
        compare(committed, write_tables(tmp_path / "c", (1.0, "d1"), (11.0, "other")), 0.05, 5)
    with pytest.raises(SchNetError, match=r"y1: 0\.3, was 2"):
        compare(committed, write_tables(tmp_path / "d", (1.0, "d1"), (0.3, "other")), 0.05, 5)


def test_compare_leaves_out_what_is_derived(tmp_path):
    """A logarithm has no sign that a factor could be asked of; its ingredients are compared."""
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (0.01, "d1"))
    other = write_tables(tmp_path / "b", (1.0, "d1"), (-0.02, "d1"))
    with pytest.raises(SchNetError, match="y1"):
        compare(committed, other)
    for folder in (committed, other):
        file = folder / "table_1.csv"
        first, *lines = file.read_text().splitlines()
        lines = [f"{line},{'log_mae' if 'y1' in line else ''}" for line in lines]
        file.write_text("\n".join([f"{first},derived", *lines]) + "\n")
    compare(committed, other)


def test_compare_wants_something_to_compare(tmp_path):
    empty = write_tables(tmp_path / "a")
    with pytest.raises(SchNetError, match="nothing is compared"):
        compare(empty, write_tables(tmp_path / "b", (1.0, "d1")))
    with pytest.raises(SchNetError, match="no table to compare with"):
        compare(tmp_path / "absent", empty)


def write_cells(results, *lines):
    (results / "tables").mkdir(parents=True)
    head = "row,column,unit,measured,printed,data"
    (results / "tables" / "table_1.csv").write_text("\n".join([head, *lines]) + "\n")
    return results


def test_compare_side_by_side_across_scales(tmp_path):
    one = write_cells(tmp_path / "small", "U0,mae,eV,0.5,0.014,d1", "mu,mae,Debye,2,0.033,d1")
    lines = ("U0,mae,meV,250,14,d2", "mu,mae,Debye,6,0.033,d1", "G,mae,eV,1,,d1")
    other = write_cells(tmp_path / "demo", *lines)
    done = subprocess.run(
        ["schnet", "compare", one, other, "-o", tmp_path / "both"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "2 cells measured in both, 1 in one alone" in done.stdout
    assert "0.5 to 3, median 1.75" in done.stdout
    with open(tmp_path / "both.csv", newline="", encoding="utf-8") as f:
        records = {record["row"]: record for record in csv.DictReader(f)}
    u0, dipole = records["U0"], records["mu"]
    assert (u0["unit"], u0["first"], u0["second"], u0["ratio"]) == ("eV", "0.5", "0.25", "0.5")
    assert (u0["printed"], u0["same_data"], dipole["same_data"]) == ("0.014", "no", "yes")
    assert (records["G"]["first"], records["G"]["ratio"]) == ("", "")
    assert "| mu | mae | Debye | 2 | 6 | 3 | 0.033 | yes |" in (tmp_path / "both.md").read_text()
    assert (tmp_path / "both.png").stat().st_size > 10_000


def test_compare_side_by_side_wants_common_cells_of_one_quantity(tmp_path):
    one = write_cells(tmp_path / "a", "U0,mae,eV,0.5,,d")
    with pytest.raises(SchNetError, match="no cell is measured in both"):
        pairs(one, write_cells(tmp_path / "b", "G,mae,eV,0.5,,d"))
    with pytest.raises(SchNetError, match=r"table_1.csv: U0, mae: cannot convert Debye"):
        pairs(one, write_cells(tmp_path / "c", "U0,mae,Debye,0.5,,d"))


# ---- schnet plan ---------------------------------------------------------------------------------
def test_plan_counts_runs_and_says_what_is_not_known(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path, "paper")
    plan.show(project)
    out = capsys.readouterr().out
    names = project.experiments_in_order()  # the paper's tables first
    assert names[0] == "table_1"
    for name in ("table_1", "table_4_larger"):
        before = names[: names.index(name)]
        counted = {run.path for earlier in before for run in project.runs_of(earlier)}
        new = [run for run in project.runs_of(name) if run.path not in counted]
        steps = f"{sum(run.settings.steps for run in new):,}"
        known = rf"{name} +{len(new)} +0 +{steps} +unknown +unknown"
        assert re.search(rf"{known} .*{len(new)} runs of \d+ kinds", out)
    assert 0 < len(new) < len(project.runs_of("table_4_larger"))
    assert "there are no finished runs" in out
    assert re.search(r"c20_dynamics +5 +0 +77,500,000 +60.00", out)
    seconds = {"steps": 1000, "training_seconds": 36.0, "hardware": provenance.hardware()}
    new = project.runs_of("table_1")
    finish(next(run for run in new if run.settings.target == "U"), result=seconds)
    # 36 s for a thousand steps: a hundred hours for each run of that kind
    kind = [
        run
        for run in new
        if run.settings.architecture == "schnet" and run.settings.model.get("readout") != "mean"
    ]
    same = [run for run in kind if run.settings.model.get("readout") != "dipole"]
    plan.show(project)
    out = capsys.readouterr().out
    assert len(same) > 10
    # one of them is finished
    hours, left = f"{len(same)}00.00", f"{len(same) - 1}00.00"
    assert re.search(rf"table_1 +{len(new)} +1 .* {hours} +{left} .*unknown", out)
    assert re.search(r"qm9 .*T=6 F=64 sum +one property 0.03600 s", out)
    assert re.search(r"qm9 .*T=6 F=64 dipole one property unknown", out)  # a kind of its own


def test_plan_of_some_experiments(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path)
    plan.show(project, ["table_2", "rho_md17"])
    shown = capsys.readouterr().out
    assert re.search(r"^table_2 +12 ", shown, re.M) and re.search(r"^rho_md17 +6 ", shown, re.M)
    assert re.search(r"^all +18 ", shown, re.M) and "table_1" not in shown
    assert "qm9" not in shown and "evaluations" not in shown
    with pytest.raises(ConfigError, match="schnet plan: .*'table_22'; did you mean 'table_2'"):
        plan.show(project, ["table_22"])


def test_plan_does_not_mix_hardware(workflow, tmp_path, capsys):
    """This machine's runs count alone; without them those of one other machine, and it is said."""
    project = open_project(workflow, tmp_path, "paper")
    here, there, faster = (
        {"steps": 1000, "training_seconds": seconds, "hardware": name}
        for seconds, name in ((36.0, provenance.hardware()), (72.0, "Z80"), (7.2, "a big GPU"))
    )
    runs = [runs_of(project, "table_1", row, "schnet")[0] for row in ("U0", "mu")]
    finish(runs[1], result=there)
    plan.show(project)
    out = capsys.readouterr().out
    assert "on other hardware (Z80, 1 threads)" in out and "0.07200 s" in out
    finish(runs[0], result=here)
    plan.show(project)
    out = capsys.readouterr().out
    assert f"finished runs of this machine ({provenance.hardware()}, 1 threads)" in out
    assert "0.03600 s" in out and "0.07200 s" not in out
    # neither runs of a GPU nor of more threads
    finish(runs[0], result=faster, execution={"device": "cuda", "threads": 1})
    finish(runs[1], result=here, execution={"device": "cpu", "threads": 2})
    plan.show(project)
    assert "there are no finished runs" in capsys.readouterr().out


def test_plan_knows_committed_runs_for_what_they_are(workflow, tmp_path, capsys):
    project = open_project(workflow, tmp_path, "paper")
    run = runs_of(project, "table_1", "U0", "schnet")[0]
    name = provenance.hardware()
    finish(run, result={"steps": 1000, "training_seconds": 36.0, "hardware": name})
    results = project.root / project.config["results_dir"]
    committed = results / "replication" / "paper" / "runs" / run.path
    committed.parent.mkdir(parents=True)
    shutil.move(run.folder, committed)
    plan.show(project)
    assert "that came with the repository on other hardware" in capsys.readouterr().out


def test_plan_tells_kinds_of_run_apart():
    run = {"dataset": "qm9", "target": "U0", "model": {"n_interactions": 3}}
    base = plan.kind_of(run)
    assert base == plan.kind_of(run | {"model": {"n_interactions": 3, "n_features": 64}, "seed": 5})
    assert base != plan.kind_of(run | {"model": {"n_interactions": 3, "readout": "dipole"}})
    assert base != plan.kind_of(run | {"forces": "forces"})
    dimenet = run | {"architecture": "dimenet", "model": {"n_blocks": 4}}
    faster = dimenet | {"model": {"n_blocks": 4, "plus_plus": True}}
    assert plan.kind_of(dimenet) != plan.kind_of(faster)
    with pytest.raises(ConfigError, match="no method 'none'"):
        plan.kind_of(run | {"method": "none"})


def test_plan_of_a_method_without_steps(workflow, tmp_path, capsys):
    write_methods_table(workflow)
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "methods", "mean", "mae")[0]
    result = {"seconds": 7200.0, "hardware": provenance.hardware()}
    finish(run, result=result)
    plan.show(project)
    out = capsys.readouterr().out
    assert re.search(r"methods +1 +1 +0 +2.00 +0 ", out)
    assert re.search(r"qm9 +mean +sum +N=10,000 one property 7200.00000 s", out)


def test_plan_measures_where_asked(workflow, tmp_path, capsys, monkeypatch):
    for path in (workflow / "workflow" / "figures").glob("*.yaml"):
        path.unlink()
    for path in (workflow / "workflow" / "simulations").glob("*.yaml"):
        path.unlink()
    for path in (workflow / "workflow" / "experiments").glob("*.yaml"):
        if path.stem != "table_2":
            path.unlink()
    small = workflow / "workflow" / "scales" / "small.yaml"
    write_yaml(small, {k: v for k, v in read_yaml(small).items() if k != "simulations"})
    monkeypatch.setattr(plan, "MADE_UP", 40)
    monkeypatch.setattr(plan, "PATIENCE", 0.5)
    project = open_project(workflow, tmp_path)
    # what a finished run says is not used: all is from here and now
    run = runs_of(project, "table_2", "schnet", "n3000")[0]
    finish(run, result={"steps": 1000, "training_seconds": 9e6, "hardware": provenance.hardware()})
    plan.show(project, measure=True)
    out = capsys.readouterr().out
    assert "measured here and now" in out and "finished runs" not in out
    assert "fits without gradient steps are not timed" in out
    # kernels take no steps: their time is not measured by some of them
    assert "9 runs of 3 kinds unknown" in out
    assert re.search(r"materials_project .* 0.\d+ s", out)


def test_plan_measures_sizes_as_mixed_as_the_data(workflow, tmp_path, monkeypatch):
    """Crystals and QM9 have structures of many sizes, MD17 has one."""
    from schnet.training.loop import Trainer

    monkeypatch.setattr(plan, "PATIENCE", 0.5)
    monkeypatch.setattr(plan, "MADE_UP", 400)
    project = open_project(workflow, tmp_path)
    seen = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda t: (seen.append(t), step(t))[1])

    def sizes(experiment, row, column):
        run = runs_of(project, experiment, row, column)[0]
        plan.measure(run, project.sources[run.dataset], 1, "cpu")
        return np.diff(seen[-1].inputs.store.offsets)

    qm9, md17 = sizes("table_1", "mu", "schnet"), sizes("table_3", "ethanol", "both_1000")
    assert abs(qm9.mean() - 18) < 1 and 2 < qm9.std() < 4
    assert set(md17) == {9}


def test_plan_of_a_gpu_that_is_not_there(workflow, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU"):
        plan.show(open_project(workflow, tmp_path), device="cuda")


@pytest.mark.parametrize("file", ["metrics.json", "run.yaml"])
def test_damaged_files_of_a_run_are_named(workflow, tmp_path, file):
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_2", "schnet", "n3000")[0]
    finish(run)
    write_json(run.folder / file, {"parts": {"test": {}}} if file == "metrics.json" else {})
    with pytest.raises(ConfigError, match=rf"{file}: .*required property; delete"):
        run.metrics(), run.about()


def test_committed_pages_are_those_of_the_committed_results(tmp_path):
    """docs/results.md and the small tables, line by line but for notes on a mirror."""
    config = {"scale": "small", "results_dir": str(ROOT / "results" / "replication")}
    project = load_project(config, ROOT)
    summary.render(project, tmp_path / "page.md")

    def lines(text):
        return [line for line in text.splitlines() if line.startswith("|")]

    page = (ROOT / "docs" / "results.md").read_text()
    assert lines(page) == lines((tmp_path / "page.md").read_text()), "schnet summary"
    for file in sorted((ROOT / "results/replication/small/tables").glob("*.md")):
        shown = markdown(tables.make_table(project, file.stem))
        assert lines(file.read_text()) == lines(shown), f"schnet table {file.stem}"
