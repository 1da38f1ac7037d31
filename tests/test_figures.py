"""Declared figures: drawn from runs as they lie on disk, refused when a declaration is wrong."""

import io
import re
import shutil
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, schnet, snakemake, write_molecules

from schnet import figures
from schnet.data.store import Store
from schnet.errors import ConfigError
from schnet.figures import (
    calibration,
    cost,
    dynamics,
    embedding_pca,
    error_histogram,
    learning_curve,
    training_curves,
)
from schnet.files import write_json, write_yaml
from schnet.models import build, save_model
from schnet.project import load_project

NAMES = sorted(path.stem for path in (ROOT / "workflow" / "figures").glob("*.yaml"))
UNITS = {"zpve": "meV", "mu": "Debye", "alpha": "Bohr^3", "r2": "Bohr^2", "Cv": "cal/mol K"}
UNITS_OF_DATASET = {"qm9": "eV", "iso17": "eV", "materials_project": "eV/atom"}
MODELS = ("table_2", "learning_curves_qm9")  # whose models figures are drawn from
GROUPS = [(3, 11, 19), (4, 12, 20), (9, 17, 35)]  # Li Na K, Be Mg Ca, F Cl Br


def demo(folder, **config):
    folders = {"results_dir": str(folder / "results"), "data_dir": str(folder / "data")}
    return load_project({"scale": "demo", **folders, **config})


def write_data(project, *left_out):
    """Small converted data sets in place of those that the project's runs need."""
    project.data.mkdir(parents=True)
    for name in set(project.datasets()) - set(left_out):
        write_molecules(project.data_file(name), 12, name=name)


def unit_of(run):
    target = run.settings.target
    return UNITS.get(target) or UNITS_OF_DATASET.get(run.dataset, "kcal/mol")


def write_run(run, error=0.1, spread=5.0, centre=0.0, with_model=False):
    """A finished run: 60 test structures, whose errors have the given size."""
    rng = np.random.default_rng(zlib.crc32(run.path.encode()))
    target, unit = run.settings.target, unit_of(run)
    parts = {}
    run.folder.mkdir(parents=True)
    names = ["test"]
    if run.settings.split_strategy == "predefined":
        names = ["test_within", "test_other"]
    with h5py.File(run.predictions_file, "w") as h5:
        for name in names:
            true = centre + rng.uniform(-spread, spread, 60)
            wrong = error * rng.choice([-1.0, 1.0], 60)
            wrong[7] = 12 * error
            group = h5.create_group(name)
            group["true"], group["predicted"], group["index"] = true, true + wrong, np.arange(60)
            group.attrs["unit"] = unit
            force_mae = float(np.abs(wrong).mean())
            if run.settings.forces:
                group["forces_true"] = rng.normal(size=(120, 3))
                group["forces_predicted"] = group["forces_true"] + error * rng.normal(size=(120, 3))
                off = group["forces_predicted"][:] - group["forces_true"][:]
                force_mae = float(np.abs(off).mean())
            worst = [{"id": "worst-one", "error": float(wrong[7])}]
            mae = float(np.abs(wrong).mean())
            measured = {"mae": mae, "rmse": 2 * mae, "n": 60, "unit": unit}
            parts[name] = {target: measured | {"largest": worst}}
            if not run.dataset.startswith(("qm9", "materials")):  # all others have forces
                parts[name]["forces"] = measured | {"mae": force_mae, "unit": f"{unit}/Å"}
    write_json(run.metrics_file, {"target": target, "parts": parts})
    result = {"steps": 30, "seconds": 1 + rng.uniform()}
    about = {"run": run.settings.scientific(), "execution": {"threads": 2}, "result": result}
    about["data"] = {"digest": "0", "split_digest": "0"}
    write_yaml(run.folder / "run.yaml", about)
    if run.settings.method == "neural":
        losses = "step,raw_loss,ema_loss\n10,2,3\n20,1,0.5\n30,1,0.7\n"
        run.history_file.write_text(losses)
        if with_model:
            write_model(run)
    return run


def write_model(run):
    """A model whose embeddings lie near one point for each of three groups of elements."""
    torch.manual_seed(0)
    model = build(run.settings.architecture, run.settings.model)
    with torch.no_grad():
        for members in GROUPS:
            centre = torch.randn(model.embedding.weight.shape[1])
            noise = 0.05 * torch.randn(len(members), len(centre))
            model.embedding.weight[list(members)] = centre + noise
    metals = [z for members in GROUPS for z in members]
    model.set_elements(torch.tensor([1, 6, 7, 8] if run.dataset == "qm9" else metals))
    about = {"periodic": run.dataset == "materials_project"}
    unit = unit_of(run)
    save_model(run.model_file, model, target=run.settings.target, unit=unit, provenance=about)


def write_simulation(job):
    """A finished simulation: modes with known differences, or atoms around a ring that breathes."""
    job.folder.mkdir(parents=True)
    if job.kind == "modes":
        modes = pd.DataFrame({"mode": [1, 2], "frequency_cm-1": [100.0, 200.0], "degeneracy": 1})
        modes.to_csv(job.folder / "modes.csv", index=False)
        compared = pd.DataFrame({"mode": [1, 2], "reference_cm-1": [100.0, 200.0]})
        compared["other_cm-1"], compared["difference_percent"] = [110.0, 190.0], [10.0, -5.0]
        compared.assign(overlap=1.0).to_csv(job.folder / "comparison_1.csv", index=False)
        job.result.touch()
        return
    beads, rng = job.settings["beads"], np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(6) / 6
    ring = 1.4 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    size = 1 + 0.001 * beads + 0.02 * rng.normal(size=(50, beads, 1, 1))
    with h5py.File(job.result, "w") as h5:
        h5["positions"], h5["numbers"], h5["pbc"] = size * ring, np.full(6, 6), np.zeros(3, bool)
        h5["log/time_ps"] = 0.01 * np.arange(50)
        h5["log/temperature_K"] = rng.normal(300, 10, 50)
        for name in ("potential_eV", "conserved_eV", "kinetic_cv_eV"):
            h5[f"log/{name}"] = rng.normal(0, 0.1, 50)


def drawn(project, name, folder):
    """The data of a rendered figure."""
    figures.render(project, name, folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 1000
    for suffix in ("pdf", *figures.extras(project, name)):
        assert (folder / f"{name}.{suffix}").stat().st_size > 20
    return pd.read_csv(folder / f"{name}.csv")


@pytest.mark.parametrize("output", ["figure_3", "figure_3.docx"])
def test_a_picture_says_its_format(tmp_path, output):
    with pytest.raises(ConfigError, match=r"the name must end in one of .*\.png"):
        figures.render(demo(tmp_path), "figure_3", tmp_path / output)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A demo project with all its runs there."""
    project = demo(tmp_path_factory.mktemp("complete"))
    with_models = {run.path for name in MODELS for run in project.runs_of(name)}
    for run in project.runs.values():
        write_run(run, with_model=run.path in with_models)
    for jobs in project.simulations.values():
        for job in jobs:
            write_simulation(job)
    write_data(project)
    return project


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_from_all_runs(complete, name, tmp_path):
    data = drawn(complete, name, tmp_path)
    assert len(data) and not data.dropna(axis=1, how="all").empty
    missing = [file for file in figures.files_read(complete, name) if not file.exists()]
    data_and_splits = {file for run in complete.runs.values() for file in (run.data, run.split)}
    assert set(missing) <= data_and_splits


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_from_some_runs(name, tmp_path):
    project = demo(tmp_path)
    there = {run.path for run in list(project.runs.values())[::3]}
    with_models = {run.path for name in MODELS for run in project.runs_of(name)}
    for path in there:
        write_run(project.runs[path], with_model=path in with_models)
    for jobs in project.simulations.values():
        write_simulation(jobs[0])
    write_data(project, "qm9", "iso17")
    data = drawn(project, name, tmp_path)
    assert len(data)
    if "run" in data:
        assert set(data["run"]) <= there


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_without_runs(name, tmp_path, caplog):
    data = drawn(demo(tmp_path), name, tmp_path)
    assert f"{name}: nothing that it is drawn from is there at the scale demo" in caplog.text
    for column in {"mae", "count", "loss", "predicted", "x"} & set(data):
        assert data[column].isna().all()


def test_normal_modes_of_every_model_stand_beside_the_reference(complete, tmp_path):
    data = drawn(complete, "figure_7", tmp_path)
    assert set(data["model"]) == {"GFN2-xTB", "SchNet, T=3, F=64"}
    other = data[data["model"] != "GFN2-xTB"]
    assert list(other["difference_percent"]) == [10.0, -5.0]


def test_dynamics_are_compared_by_number_of_beads(complete, tmp_path):
    data = drawn(complete, "figure_8", tmp_path)
    assert set(data["beads"]) == {1, 8}
    assert set(data["distribution"]) == {"nearest", "diameter", "pairs"}
    for _, curve in data.groupby(["distribution", "beads"]):
        width = curve["r"].diff().median()
        assert (curve["density"] * width).sum() == pytest.approx(1)
    assert set(drawn(complete, "figure_11", tmp_path)["beads"]) == {1, 2, 8}
    texts = []
    for name in ("figure_8", "figure_11"):
        picture, _ = dynamics.draw(complete, complete.figures[name])
        texts.append(picture.get_supxlabel())
    assert "longer by less than 0.5 %" in texts[0] and "skewness" in texts[0]
    assert "lies elsewhere than with 8 beads" in texts[1] and "2 beads" in texts[1]


def test_accuracy_against_cost_counts_cores(complete, tmp_path):
    data = drawn(complete, "accuracy_against_cost", tmp_path)
    assert set(data["column"]) == {"U0", "ethanol_forces", "aspirin_forces"}
    labels = {row["label"] for row in complete.experiments["architectures_qm9"]["rows"]}
    assert set(data["label"]) == labels
    for _, point in data.iterrows():
        about = complete.run(point["run"]).about()
        assert point["core_seconds"] == pytest.approx(2 * about["result"]["seconds"])
    figure = complete.figures["accuracy_against_cost"] | {"options": {"columns": ["U00"]}}
    with pytest.raises(ConfigError, match="U0"):
        cost.draw(complete, figure)


def test_bins_of_a_calibration_are_root_mean_squares():
    spread = np.array([4.0, 1.0, 3.0, 0.0, 5.0])
    error = np.array([-8.0, 3.0, 6.0, 4.0, 10.0])
    table = calibration.binned(spread, error, 2)
    assert list(table["n"]) == [3, 2]
    assert list(table["spread"] ** 2) == pytest.approx([10 / 3, 41 / 2])
    assert list(table["error"] ** 2) == pytest.approx([61 / 3, 164 / 2])
    assert len(calibration.binned(spread, error, 9)) == 5
    numbers = calibration.scalars(spread, error)
    assert numbers["ratio"] == pytest.approx(np.sqrt(225 / 51))
    # ranks 4 2 3 1 5 of spread and 4 1 3 2 5 of error: 1 - 6 · 2 / (5 · 24)
    assert numbers["rank_correlation"] == pytest.approx(0.9)


def test_calibration_of_a_committee(complete, tmp_path):
    """Two members: mean and spread by hand from their predictions."""
    data = drawn(complete, "calibration", tmp_path).set_index(["row", "column"])
    cells = {(c.row, c.column): c for c in complete.cells["committee_md17"]}
    errors = []
    for run in cells["toluene", "committee_forces"].runs:
        with h5py.File(run.predictions_file) as h5:
            predicted, true = h5["test/forces_predicted"][:], h5["test/forces_true"][:]
            errors.append((predicted - true).ravel())
    mean, spread = (errors[0] + errors[1]) / 2, np.abs(errors[0] - errors[1]) / np.sqrt(2)
    bins = data.loc[[("toluene", "committee_forces")]]
    assert bins["n"].sum() == len(mean) == 360 and (bins["members"] == 2).all()
    ratio = np.sqrt((mean**2).mean() / (spread**2).mean())
    assert bins["ratio"].to_numpy() == pytest.approx(ratio)
    assert (bins["n"] * bins["error"] ** 2).sum() == pytest.approx((mean**2).sum())
    assert bins["spread"].is_monotonic_increasing
    assert set(bins["unit"]) == {"kcal/mol/Å"}
    assert "Committees of 2 models" in figures.caption(complete, "calibration")


def test_learning_curve_shows_errors_of_repeats_only(tmp_path):
    project = demo(tmp_path)
    runs = [run for run in project.runs_of("table_2") if run.settings.method == "neural"]
    for k, run in enumerate(runs):
        write_run(run, error=0.1 * (k + 1))
    figure = {"kind": "learning_curve", "experiments": ["table_2"]}
    data = learning_curve.points(project, figure)
    data = data[data["model"] == "schnet"].set_index("n_train")
    for n, point in data.iterrows():
        measured = [r.metrics()["parts"]["test"] for r in runs if r.n_train == n]
        errors = [m["formation_energy_per_atom"]["mae"] for m in measured]
        assert point["mae"] == pytest.approx(np.mean(errors)) and point["runs"] == len(errors) == 2
        assert point["standard_error"] == pytest.approx(np.std(errors, ddof=1) / np.sqrt(2))
    picture, _ = learning_curve.draw(project, figure)
    assert len(picture.axes[0].containers) == 1

    single = demo(tmp_path / "single", repeats=1)
    for run in single.runs_of("table_2"):
        write_run(run)
    picture, text = learning_curve.draw(single, figure)
    assert not picture.axes[0].containers
    assert pd.read_csv(io.StringIO(text))["standard_error"].isna().all()
    assert "no error bars" in learning_curve.note(single, figure)


def test_learning_curves_join_what_differs_in_size_alone(complete):
    """Tables III and IV: molecules in rows; sizes and kinds of training in columns."""
    figure = {"kind": "learning_curve", "experiments": ["table_3", "table_4"]}
    data = learning_curve.points(complete, figure)
    for _, curve in data.groupby(["experiment", "curve"]):
        assert curve["paper_n"].is_unique
    both = data[data["label"] == "Toluene, SchNet, energy+forces"]
    for unit in ("kcal/mol", "kcal/mol/Å"):
        assert set(both[both["unit"] == unit]["n_train"]) == {80, 96}
    picture, _ = learning_curve.draw(complete, figure)
    units = [ax.get_ylabel().rpartition(" / ")[0] for ax in picture.axes]
    assert units == ["mean absolute error"] * 2
    assert {ax.get_ylabel().split(" / ", 1)[1] for ax in picture.axes} == {"kcal/mol", "kcal/mol/Å"}


def test_learning_curves_keep_other_settings_apart(complete):
    figure = {"kind": "learning_curve", "experiments": ["table_4_larger"]}
    data = learning_curve.points(complete, figure)
    assert not data.duplicated(["curve"]).any()
    figure["experiments"] = ["table_2"]
    figure["options"] = {"labels": {"schnet": "SchNet"}}
    data = learning_curve.points(complete, figure)
    schnet = data[data["label"] == "SchNet"]
    assert set(schnet["n_train"]) == {100, 240}
    assert set(data[data["model"] == "kernel_ridge"]["n_train"]) == {100}


def hollow(picture):
    """(x, y) of all hollow markers."""
    lines = [line for line in picture.axes[0].lines if line.get_markerfacecolor() == "none"]
    return [xy for line in lines for xy in line.get_xydata().tolist()]


def test_printed_values_are_drawn_at_the_papers_size_but_not_beside_made_up_data(tmp_path):
    for scale, shown in (("small", True), ("demo", False)):
        config = {"scale": scale, "results_dir": str(tmp_path)}
        project = load_project(config)
        figure = project.figures["figure_3"]
        for run in figures.runs_of(project, figure):
            write_run(run)
        picture, text = learning_curve.draw(project, figure)
        printed = pd.read_csv(io.StringIO(text)).dropna(subset="printed")
        assert len(printed)
        expected = printed[["paper_n", "printed"]].to_numpy().tolist() if shown else []
        assert sorted(hollow(picture)) == sorted(expected)
        assert ("Hollow markers" in figures.caption(project, "figure_3")) is shown
        low, high = picture.axes[0].get_xlim()
        assert all(low < x < high for x, _ in expected)


def test_another_architecture_is_drawn_as_reference(complete):
    picture, text = learning_curve.draw(complete, complete.figures["figure_3"])
    models = pd.read_csv(io.StringIO(text)).drop_duplicates("curve")
    assert set(models["model"]) == {"schnet", "dtnn"}
    black = [line.get_label() for line in picture.axes[0].lines if line.get_color() == "#000000"]
    assert black == models[models["model"] == "dtnn"]["label"].tolist()


def test_grouping_is_found_where_there_is_one():
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d"], 6)
    centres = np.repeat(rng.normal(size=(4, 16)), 6, axis=0)
    near = embedding_pca.nearest_neighbours(centres + 0.01 * rng.normal(size=(24, 16)))
    share, chance, p = embedding_pca.grouping_test(near, groups, 999, 0)
    assert share == 1 and chance == pytest.approx(5 / 23, abs=0.03) and p == 0.001
    near = embedding_pca.nearest_neighbours(rng.normal(size=(24, 16)))
    assert embedding_pca.grouping_test(near, groups, 999, 0)[2] > 0.02


def test_embedding_figure_states_its_test(complete, tmp_path):
    data = drawn(complete, "figure_4", tmp_path)
    assert data["atomic_number"].tolist() == sorted(z for members in GROUPS for z in members)
    assert (data["same_group_share"] == 1).all() and (data["permutations"] == 10_000).all()
    assert data["p"].iloc[0] < 0.01
    assert data["run"].nunique() == 1 and "/n240/rep0" in data["run"].iloc[0]


def test_histogram_counts_every_error():
    rng = np.random.default_rng(0)
    for error in (np.abs(rng.normal(size=500)), np.zeros(5), np.full(9, 0.3), np.r_[0, 0, 1.0]):
        counts, edges = error_histogram.histogram(error, 20)
        assert counts.sum() == len(error) and edges[0] == 0 and edges[-1] >= error.max()
        assert len(counts) == 20 and (np.diff(edges) > 0).all()
    ratio = edges[2:] / edges[1:-1]
    assert ratio == pytest.approx(ratio[0])


def test_histogram_names_the_largest_error_in_the_unit_of_the_table(complete, tmp_path):
    data = drawn(complete, "figure_9", tmp_path)
    assert (data["largest_id"] == "worst-one").all()
    assert data["largest"].to_numpy() == pytest.approx(12 * 0.1)
    zpve = data[data["panel"] == "ZPVE"]
    assert (zpve["unit"] == "meV").all() and zpve["count"].sum() == 2 * 60  # two repeats
    assert r"$\epsilon_\mathrm{HOMO}$" in set(data["panel"])


def test_histogram_of_structures_leaves_forces_out(complete):
    figure = {"kind": "error_histogram", "experiments": ["table_5"]}
    _, text = error_histogram.draw(complete, figure)
    assert set(pd.read_csv(io.StringIO(text))["unit"]) == {"kcal/mol"}


def test_histogram_of_the_rows_that_are_named(complete):
    """Table II has four with two repeats at N = 3,000, and SchNet's alone at N = 60,000."""
    figure = {"kind": "error_histogram", "experiments": ["table_2"], "options": {"panel": "column"}}
    counts = []
    for rows in ([], ["schnet", "sine"]):
        figure["options"]["rows"] = rows
        _, text = error_histogram.draw(complete, figure)
        found = pd.read_csv(io.StringIO(text)).groupby("panel")["count"].sum()
        counts.append((found["N = 3,000"], found["N = 60,000"]))
    assert counts == [(8 * 60, 2 * 60), (4 * 60, 2 * 60)]
    figure["options"] = {"panel": "row", "models": ["n60000"]}
    found = pd.read_csv(io.StringIO(error_histogram.draw(complete, figure)[1]))
    assert found.groupby("panel")["count"].sum().to_dict() == {"SchNet (T=6)": 2 * 60}


def test_predictions_are_drawn_of_networks_alone(complete, tmp_path):
    shown = set(drawn(complete, "predicted_true", tmp_path)["run"])
    assert shown and {complete.runs[path].settings.method for path in shown} == {"neural"}


def test_residuals_are_drawn_where_the_range_hides_the_errors(tmp_path):
    project = demo(tmp_path)
    precise, coarse = project.runs_of("table_3")[:2]
    write_run(precise, error=0.001, centre=-1000.0)
    write_run(coarse, error=1.0)
    data = drawn(project, "predicted_true", tmp_path).set_index("run")
    assert set(data.loc[precise.path, "drawn"]) == {"residual"}
    assert set(data.loc[coarse.path, "drawn"]) == {"predicted"}


def test_training_curves_are_named_by_what_differs(complete, tmp_path):
    runs = complete.runs_of("learning_curves_qm9")
    names = dict(zip([r.path for r in runs], training_curves.line_names(runs), strict=True))
    assert len(set(names.values())) == len(runs)
    for run in runs:
        assert f"N={run.n_train}" in names[run.path]
        if run.settings.architecture == "schnet":
            blocks = run.settings.model.get("n_interactions", 6)
            assert names[run.path].startswith("schnet")
            assert f"T={blocks}" in names[run.path] and "rep" not in names[run.path]
    repeats = [run for run in complete.runs_of("table_2") if run.n_train == 240]
    assert training_curves.line_names(repeats) == ["N=240"] * 2
    data = drawn(complete, "training_curves", tmp_path)
    tables = ("table_1", "table_2", "table_3", "table_5", "table_iso17")
    runs = [run for name in tables for run in complete.runs_of(name)]
    assert set(data["run"]) == {run.path for run in runs if run.settings.method == "neural"}


def test_distributions_of_data_are_those_of_the_store(complete, tmp_path):
    data = drawn(complete, "data_distributions", tmp_path)
    assert set(data["dataset"]) == set(complete.datasets())
    store = Store(complete.data_file("c20"))
    with store.open() as h5:
        forces, energy = h5["properties/forces"][:], h5["properties/energy"][:]
    drawn_forces = data[(data["dataset"] == "c20") & (data["property"] == "forces")]
    for k, axis in enumerate("xyz"):
        bins = drawn_forces[drawn_forces["axis"] == axis]
        edges = [*bins["low"], bins["high"].iloc[-1]]
        assert bins["count"].tolist() == np.histogram(forces[:, k], edges)[0].tolist()
        assert bins["mean"].iloc[0] == pytest.approx(forces[:, k].mean())
        assert bins["standard_deviation"].iloc[0] == pytest.approx(forces[:, k].std())
    of_energy = data[(data["dataset"] == "c20") & (data["property"] == "energy")]
    assert of_energy["count"].sum() == len(energy)


def test_example_structures_are_those_of_the_store(complete, tmp_path):
    data = drawn(complete, "example_structures", tmp_path)
    structure = Store(complete.data_file("iso17")).structure(0)
    atoms = data[data["dataset"] == "iso17"]
    assert atoms[["x", "y", "z"]].to_numpy() == pytest.approx(structure.positions)
    forces = atoms[["force_x", "force_y", "force_z"]].to_numpy()
    assert forces == pytest.approx(structure.properties["forces"])


def test_a_figure_of_data_depends_on_data_that_runs_need_alone(workflow):
    project = load_project({"scale": "demo"}, workflow)
    read = figures.files_read(project, "data_distributions")
    assert set(read) == {project.data_file(name) for name in project.datasets()}
    assert "No run at this scale needs" in figures.caption(project, "data_distributions")
    declare_data(workflow, ["md17_ethanol", "md17_azobenzene"])
    done = snakemake("-n", "mine", cwd=workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    (inputs,) = re.findall(r"rule figure:\n    input: (.*)\n", done.stdout)
    assert inputs == "results/demo/config.json, data/demo/md17_ethanol.h5"
    assert "rule convert:" in done.stdout and "rule train:" not in done.stdout


def declare_data(folder, datasets, **changes):
    """A figure called mine that draws from data sets."""
    figure = {"title": "Mine", "kind": "data_distributions", "caption": "Data."}
    text = yaml.safe_dump(figure | {"datasets": datasets} | changes)
    (folder / "workflow" / "figures" / "mine.yaml").write_text(text)


@pytest.mark.parametrize(
    ("datasets", "changes", "message"),
    [
        (["qm8"], {}, "datasets: no data set 'qm8'; did you mean 'qm9'"),
        (["qm9"], {"kind": "learning_curve"}, "learning_curve draws from experiments:"),
        (["qm9"], {"options": {"labels": {"qm8": "x"}}}, "labels: .*did you mean 'qm9'"),
        ([], {}, "datasets"),
    ],
)
def test_a_wrong_figure_of_data_is_refused(workflow, datasets, changes, message):
    declare_data(workflow, datasets, **changes)
    with pytest.raises(ConfigError, match=rf"figures/mine.yaml.*{message}"):
        load_project({"scale": "demo"}, workflow)


def declare(folder, name, **changes):
    base = {
        "title": "Mine",
        "kind": "learning_curve",
        "caption": "Crystals.",
        "experiments": ["table_2"],
    }
    path = folder / "workflow" / "figures" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(base | changes))


@pytest.mark.parametrize(
    ("changes", "place", "hint"),
    [
        ({"kind": "learning_curves"}, "kind", "'learning_curve'"),
        ({"kind": "style"}, "kind", "known: calibration, chemical_potential"),
        ({"experiments": ["table_22"]}, "experiments", "'table_2'"),
        ({"experiments": "al"}, "experiments", "'all'"),
        ({"kind": "dynamics"}, "dynamics", "draws from simulation:"),
        ({"kind": "data_distributions"}, "data_distributions", "draws from datasets:"),
        ({"options": {"x_lable": "N"}}, "options", "'x_label'"),
        ({"options": {"x_label": 3}}, "x_label", "should be like"),
        ({"options": {"labels": {"schnett": "SchNet"}}}, "labels", "'schnet'"),
        ({"kind": "error_histogram", "options": {"panel": "rows"}}, "panel", "'row'"),
        ({"kind": "error_histogram", "options": {"rows": ["schnett"]}}, "rows", "'schnet'"),
        ({"kind": "error_histogram", "options": {"models": ["n300"]}}, "models", "'n3000'"),
        ({"kind": "error_histogram", "options": {"bins": True}}, "bins", "should be like"),
        ({"kind": "chemical_potential", "options": {"molecules": ["benzen"]}}, "m", "'benzene'"),
        ({"kind": "chemical_potential_cut", "options": {"probe": "Cc"}}, "probe", "'C'"),
        ({"captoin": "x"}, "captoin", "'caption'"),
    ],
)
def test_a_wrong_declaration_is_refused_with_the_nearest_name(workflow, changes, place, hint):
    declare(workflow, "mine", **changes)
    with pytest.raises(ConfigError) as error:
        load_project({"scale": "demo"}, workflow)
    message = str(error.value)
    assert "workflow/figures/mine.yaml" in message and place in message and hint in message


def test_a_new_declaration_is_a_target(workflow):
    declare(workflow, "my_curve", options={"x_label": "crystals"})
    project = load_project({"scale": "demo", "results_dir": str(workflow / "results")}, workflow)
    for run in project.runs_of("table_2"):
        write_run(run)
    points = drawn(project, "my_curve", workflow)
    assert (points["runs"] > 0).all() and len(points) == len(project.cells["table_2"])
    shutil.rmtree(workflow / "results")
    done = snakemake("-n", "my_curve", cwd=workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results/demo/figures/my_curve.png" in done.stdout


def test_the_command_draws_a_declared_figure_and_knows_the_nearest_name(workflow):
    declare(workflow, "my_curve")
    output = workflow / "out" / "my_curve.png"
    done = schnet("figure", "my_curve", "-o", output, cwd=workflow)
    assert done.returncode == 0 and output.exists(), done.stderr
    done = schnet("figure", "my_curv", "-o", output, cwd=workflow)
    assert done.returncode == 2 and "'my_curve'" in done.stderr


def test_loading_a_project_imports_no_matplotlib():
    code = (
        "import sys; from schnet.project import load_project; load_project({'scale': 'demo'}); "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
