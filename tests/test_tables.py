"""Tables as a reader meets them."""

import json
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from conftest import ROOT
from finished_runs import (
    finish,
    finish_all,
    line_of,
    open_project,
    rendered,
    runs_of,
    sources,
    write_methods_table,
)

from schnet import provenance, report, summary, tables
from schnet.data import census
from schnet.data.fetch import fetch_file
from schnet.errors import ConfigError, DataError
from schnet.figures import cost
from schnet.files import read_yaml, write_json, write_yaml
from schnet.project import load_project
from schnet.tables.latex import latex_text
from schnet.tables.writers import markdown
from schnet.units import factor


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
    assert "Missing, 2 of 3 runs there: SchNet (T=6) for ZPVE." in markdown
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
    assert "Missing, it needs a value of mu: DTNN for std. MAE, logMAE." in markdown
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
    older = runs_of(project, "table_3", "ethanol", "energy_1000")[0]  # does not say whose it is
    finish(older, 0.1, "kcal/mol", data=sources({"file": "e.npz", "checksum_from": "mirror"}))
    notes = tables.make_table(project, "table_3").notes
    assert len([n for n in notes if n.startswith("Data from a mirror")]) == 1
    named = {"file": "e.npz", "checksum_from": "workflow/sources.yaml", "upstream": True}
    finish(run, 0.1, "kcal/mol", "energy", data=sources(named))
    notes = tables.make_table(project, "table_3").notes
    assert not [n for n in notes if n.startswith("Data from a mirror")]


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
    csv_file = project.results / "tables" / "table_5.csv"
    for file in (
        picture,
        picture.with_stem("calibration"),
        picture.with_stem("figure_10"),
        csv_file,
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
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
    assert page.count("## ") == 5 and f"]({picture.relative_to(tmp_path)})" in page
    assert f"[CSV]({csv_file.relative_to(tmp_path)}); the CSV file names the runs" in page
    sections = re.findall(r'<a id="(.*)">', page)
    assert sections == ["table_5", "figure_9", "figure_10", "calibration"]
    assert re.findall(r"\]\(#(\w+)\)", page) == sections  # of the contents
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


def test_a_claim_may_ask_for_a_factor_or_be_untestable(workflow, tmp_path):
    file = workflow / "workflow/experiments/learning_curves_qm9.yaml"
    experiment = read_yaml(file)
    experiment["claims"] = [
        {"text": "twice as good.", "smallest": "T6", "among": ["T2"], "by": 2},
        {"text": "best.", "smallest": "T6", "among": ["T2"], "untestable": {"small": "a reason"}},
    ]
    write_yaml(file, experiment)
    project = open_project(workflow, tmp_path)
    for row, error in (("n25000", 2.6), ("n50000", 1.6)):
        for column, value in (("T2", error), ("T6", 1.0)):
            finish(runs_of(project, "learning_curves_qm9", row, column)[0], value, "eV", "U0")
    notes = tables.make_table(project, "learning_curves_qm9").notes
    places = ["N = 25,000 (here 2,500)", "N = 50,000 (here 5,000)", "N = 110,000"]
    found = "yes ({}); no ({}); cannot be said ({})".format(*places)
    assert f"Paper: twice as good. Here: {found}." in notes
    assert f"Paper: best. Here: cannot be said, for a reason ({', '.join(places)})." in notes
    summary.render(project, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| best. | cannot be tested here | **cannot be said**, for a reason: T=6 aga" in page


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
    steps = ": trainings by their first steps"
    assert note() == [f"1 of 2 runs were {here}{steps} alone, since no model was kept."]
    runs[0].model_file.touch()
    assert note() == [f"1 of 2 runs were {here}{steps} and their errors."]
    write_json(runs[1].folder / "verified.json", found)
    assert note() == [f"2 of 2 runs were {here}{steps}, 1 with a kept model by their errors, too."]
    write_json(runs[1].folder / "verified.json", found | {"ok": False})
    bad = "1 did not come out with the same numbers"
    assert note() == [f"1 of 2 runs were {here}{steps} and their errors; {bad}."]


def test_notes_count_runs_that_no_commit_has(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    runs = [runs_of(project, "table_3", "ethanol", k)[0] for k in ("both_1000", "energy_1000")]
    for run, modified in zip(runs, (True, False), strict=True):
        git = {"commit": 40 * "0", "modified": modified}
        finish(run, 0.1, "kcal/mol", "energy", provenance={"git": git})
    notes = tables.make_table(project, "table_3").notes
    assert "Made by code with changes that no commit has: 1 of 2 runs." in notes


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
    energy = "N = 1,000: SchNet, energy"
    assert f"- Missing, 1 of 3 runs there: {energy}+forces for Aspirin, Ethanol." in markdown
    absent = next(x for x in markdown.splitlines() if x.startswith("- Missing, 0 of 1 runs there"))
    assert f"{energy} for Benzene, " in absent and absent.endswith(", Naphthalene.")
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


@pytest.mark.parametrize("file", ["metrics.json", "run.yaml"])
def test_damaged_files_of_a_run_are_named(workflow, tmp_path, file):
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_2", "schnet", "n3000")[0]
    finish(run)
    write_json(run.folder / file, {"parts": {"test": {}}} if file == "metrics.json" else {})
    with pytest.raises(ConfigError, match=rf"{file}: .*required property; delete"):
        run.metrics(), run.about()


@pytest.mark.parametrize("mae", [float("nan"), float("inf"), -1.0])
def test_what_is_no_error_is_refused(workflow, tmp_path, mae):
    project = open_project(workflow, tmp_path)
    finish(runs_of(project, "table_3", "ethanol", "both_1000")[0], mae, "kcal/mol", "energy")
    with pytest.raises(ConfigError, match=r"metrics.json: parts.test.energy.*; delete it"):
        tables.make_table(project, "table_3")


def test_a_run_of_other_settings_is_refused(workflow, tmp_path):
    project = open_project(workflow, tmp_path)
    run = runs_of(project, "table_3", "ethanol", "both_1000")[0]
    finish(run, 1.0, "kcal/mol", "energy")
    about = read_yaml(run.folder / "run.yaml")
    about["run"] |= {"rho": 0.5, "model": about["run"]["model"] | {"n_interactions": 4}}
    write_yaml(run.folder / "run.yaml", about)
    message = r"run.yaml: is of a run with other settings \(rho, model: n_interactions\); put"
    with pytest.raises(ConfigError, match=message):
        tables.make_table(project, "table_3")
    # errors that nothing says the origin of are not shown
    (run.folder / "run.yaml").unlink()
    assert "Trained here" not in "".join(tables.make_table(project, "table_3").notes)
    assert run.metrics() is None


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
