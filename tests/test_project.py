"""From configuration files to runs: what a run is, what decides where it lives, what is refused."""

import importlib.util

import pytest
import yaml
from conftest import ROOT

from schnet.errors import ConfigError
from schnet.files import read_yaml, write_yaml
from schnet.project import load_project
from schnet.run import make_spec


def write_experiment(workflow, name, rows, columns=None, run=None):
    experiment = {
        "title": name,
        "caption": "A test.",
        "run": run or {"dataset": "md17_ethanol", "target": "energy", "n_train": 1000},
        "rows": rows,
        "columns": columns or [{"key": "mae", "label": "MAE", "unit": "kcal/mol"}],
    }
    path = workflow / "workflow" / "experiments" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(experiment, allow_unicode=True))


def paths(experiment, workflow, **config):
    project = load_project({"scale": "demo"} | config, workflow)
    return [run.path for run in project.runs_of(experiment)]


# ---- what is refused: with file, place and nearest name, before any job --------------------------
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": "demo", "mirorr": "x"}, "unknown key 'mirorr'; did you mean 'mirror'"),
        ({"scale": "dmo"}, "no scale 'dmo'; did you mean 'demo'"),
        ({"scale": "demo", "protocol": "papr"}, "protocol: 'papr' is none of .*did you mean 'pape"),
        ({"scale": "demo", "run": {"batchsize": 3}}, "unknown key 'batchsize'; did you mean 'batc"),
        ({"scale": "demo", "steps": 0}, "steps: 0 is less than"),
    ],
)
def test_typos_in_the_configuration(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_project(values)
    assert "\n" not in str(error.value) and "config.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("run", "unit", "message"),
    [
        ({"architecture": "schnett"}, "kcal/mol", "'schnett'; did you mean 'schnet'"),
        ({"method": "kernel_rigde"}, "kcal/mol", "'kernel_rigde'; did you mean 'kernel_ridge'"),
        ({"model": {"n_featurs": 8}}, "kcal/mol", "'n_featurs'; did you mean 'n_features'"),
        ({"model": {"readout": "summ"}}, "kcal/mol", "'summ'"),
        ({"model": {"n_features": -4}}, "kcal/mol", "n_features"),
        ({"target": "enrgy"}, "kcal/mol", "'enrgy'; did you mean 'energy'"),
        ({"forces": "force"}, "kcal/mol", "'force'; did you mean 'forces'"),
        ({"batch_size": 1000}, "kcal/mol", "to train are fewer than one batch"),
        ({"dataset": "md17_etanol"}, "kcal/mol", "'md17_etanol'; did you mean 'md17_ethanol'"),
        ({}, "kcal/moll", "'kcal/moll'; did you mean 'kcal/mol'"),
        ({}, "Debye", "cannot convert kcal/mol"),
    ],
)
def test_typos_in_an_experiment(workflow, run, unit, message):
    columns = [{"key": "mae", "label": "MAE", "unit": unit}]
    write_experiment(workflow, "mine", [{"key": "a", "label": "a", "run": run}], columns)
    with pytest.raises(ConfigError, match=message) as error:
        load_project({"scale": "demo"}, workflow)
    assert "\n" not in str(error.value)
    assert "workflow/experiments/mine.yaml" in str(error.value)


def test_typo_in_a_key_of_an_experiment(workflow):
    file = workflow / "workflow" / "experiments" / "table_3.yaml"
    file.write_text(file.read_text().replace("row_title:", "row_titel:"))
    message = "table_3.yaml: unknown key 'row_titel'; did you mean 'row_title'"
    with pytest.raises(ConfigError, match=message):
        load_project({"scale": "demo"}, workflow)


def test_two_files_of_one_name_are_refused(workflow):
    figure = workflow / "workflow" / "figures" / "figure_3.yaml"
    figure.rename(figure.with_name("table_3.yaml"))
    message = "workflow/figures/table_3.yaml: has the name of workflow/experiments/table_3.yaml"
    with pytest.raises(ConfigError, match=message):
        load_project({"scale": "demo"}, workflow)


@pytest.mark.parametrize(("key", "value"), [("published", "../../config.yaml"), ("part", "tset")])
def test_published_files_and_parts_have_a_form(workflow, key, value):
    path = workflow / "workflow/experiments/table_2.yaml"
    experiment = read_yaml(path)
    (experiment["columns"][0] if key == "part" else experiment)[key] = value
    write_yaml(path, experiment)
    with pytest.raises(ConfigError, match=rf"table_2.yaml: .*{key}: .*does not match"):
        load_project({"scale": "demo"}, workflow)


def test_a_row_is_computed_for_the_columns_that_it_names(workflow):
    path = workflow / "workflow/experiments/table_2.yaml"
    cells = load_project({"scale": "demo"}, workflow).cells["table_2"]
    both = {("schnet", "n3000"), ("schnet", "n60000")}
    kernels = {(row, "n3000") for row in ("coulomb", "ewald", "sine")}
    assert {(c.row, c.column) for c in cells} == both | kernels
    path.write_text(path.read_text().replace("columns: [n3000]", "columns: [n3001]"))
    with pytest.raises(ConfigError, match="rows coulomb: columns: no column 'n3001'; .*'n3000'"):
        load_project({"scale": "demo"}, workflow)


def test_a_folder_is_the_same_with_a_slash():
    config = {"scale": "demo", "data_dir": "data/", "results_dir": "./results"}
    assert load_project(config).config == load_project({"scale": "demo"}).config


def test_outside_a_workflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--workflow"):
        load_project({"scale": "demo"})


def test_found_from_a_folder_below(workflow, monkeypatch):
    (workflow / "notes").mkdir()
    monkeypatch.chdir(workflow / "notes")
    assert load_project({"scale": "demo"}).root == workflow


# ---- identity ------------------------------------------------------------------------------------
def cell_of(project, experiment, row, column):
    (cell,) = [c for c in project.cells[experiment] if (c.row, c.column) == (row, column)]
    return cell


def _trained_on_both(run, n_train):
    return run.method == "neural" and run.forces == "forces" and run.n_train == n_train


def test_runs_are_those_of_the_paper():
    project = load_project({"scale": "paper"})
    runs = {name: project.runs_of(name) for name in project.experiments}
    qm9 = [r.settings for r in runs["table_1"]]
    other = [s for s in qm9 if s.architecture == "enn_s2s"]
    qm9 = [s for s in qm9 if s.architecture == "schnet"]
    assert len([s for s in qm9 if s.model.get("readout") != "dipole"]) == len(other) == 36
    seeds = [
        {r.settings.seed for r in runs["table_3"] if _trained_on_both(r.settings, n)}
        for n in (1000, 50000)
    ]
    assert seeds == [{0, 1, 2, 3}, {0}]
    assert len(runs["table_3"]) == 48 + 3 * 8
    assert all(r in runs["table_3"] for r in runs["table_4"])
    assert len([r for r in runs["table_4"] if r.settings.method == "sgdml"]) == 8
    crystals = [r.settings for r in runs["table_2"]]
    kernels = [s for s in crystals if s.method == "kernel_ridge"]
    assert len(kernels) == 9 and {s.n_train for s in kernels} == {3000}
    crystals = [s for s in crystals if s.method == "neural"]
    assert len(crystals) == 6
    first = qm9[0]
    assert (first.steps, first.batch_size, first.n_train) == (10_000_000, 32, 110_000)
    assert (first.schedule, first.loss, first.ema) == ("exponential", "paper", 0.0)
    assert {s.model.get("readout") for s in qm9 if s.target == "homo"} == {"mean"}
    assert sorted(s.seed for s in qm9 if s.target == "homo") == [0, 1, 2]
    assert all(s.model["cutoff"] == 5.0 for s in crystals)
    table_5 = [r.settings for r in runs["table_5"] if r.settings.split_strategy == "random"]
    assert len([s for s in table_5 if s.loss == "tf_code"]) == 7


@pytest.mark.parametrize(("scale", "repeats"), [("demo", 1), ("small", 3), ("paper", 1)])
def test_experiments_share_runs(scale, repeats):
    project = load_project({"scale": scale})
    shared = {r.path for r in project.runs_of("table_1")}
    shared &= {r.path for r in project.runs_of("learning_curves_qm9")}
    assert len(shared) == repeats  # U0 with T = 6 at the largest N
    assert len({(r.folder, r.path) for r in project.runs.values()}) == len(project.runs)


@pytest.mark.parametrize("execution", [{"threads": 2}, {"device": "cpu"}, {"engine": "reference"}])
def test_how_it_is_computed_changes_no_run(execution):
    usual, other = load_project({"scale": "demo"}), load_project({"scale": "demo"} | execution)
    assert list(usual.runs) == list(other.runs)
    for path, run in usual.runs.items():
        assert run.settings.scientific() == other.runs[path].settings.scientific()


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"learning_rate": 0.0005}},
        {"run": {"rho": 0.5}},
        {"run": {"seed": 7}},
        {"run": {"gradient_clipping": 1.0}},
        {"run": {"model": {"n_features": 48}}},
        {"steps": 1},
        {"protocol": "tf_code"},
    ],
)
def test_scientific_settings_make_new_directories(change):
    usual, other = load_project({"scale": "demo"}), load_project({"scale": "demo"} | change)
    settings = {path: run.settings for path, run in usual.runs.items()}
    changed = {path for path, s in settings.items() if s.method == "neural"}
    if "rho" in change.get("run", {}):
        changed = {path for path in changed if settings[path].forces}
    if "model" in change.get("run", {}):
        changed = {path for path in changed if settings[path].architecture == "schnet"}
    if "steps" in change:
        changed = {path for path in changed if settings[path].steps > change["steps"]}
    assert changed and not changed & set(other.runs)


def test_a_setting_by_its_default_is_the_same_run():
    given = {"dataset": "c20", "target": "energy", "forces": "forces"}
    plain = make_spec(given)
    assert plain.digest() == make_spec(given | {"tf32": False, "patience": None}).digest()
    assert plain.digest() != make_spec(given | {"tf32": True}).digest()
    usual = {"n_features": 64}
    spelled = make_spec(given | {"model": {"n_features": 64}})
    assert spelled.digest(usual) == plain.digest(usual)
    one, two = (make_spec(given | {"model": {"cutoff": c}}) for c in (5, 5.0))
    assert one.digest() == two.digest()


def test_repeats_differ_in_seed_and_split_only():
    runs = load_project({"scale": "demo"}).runs_of("table_2")
    first, second = (r for r in runs if r.settings.n_train == 100 and "sine" in str(r.settings))
    assert (first.settings.seed, second.settings.seed) == (0, 1)
    assert first.split != second.split and first.folder.parent == second.folder.parent


@pytest.mark.parametrize(("scale", "count"), [("demo", 2), ("small", 3), ("paper", 4)])
def test_members_of_a_committee_share_the_split_and_differ_in_seed(scale, count):
    project = load_project({"scale": scale})
    cells = {(c.row, c.column): c for c in project.cells["committee_md17"]}
    members = cells["toluene", "committee_forces"].runs
    assert [m.settings.seed for m in members] == list(range(count))
    assert len({m.split for m in members}) == 1 and len({m.folder for m in members}) == count
    settings = [m.settings.scientific() | {"seed": None} for m in members]
    assert all(other == settings[0] for other in settings)
    assert members[0] in project.runs_of("table_4")
    assert all(cells["toluene", key].runs == members for key in ("single_energy", "single_forces"))


def test_fewer_repeats_are_fewer_seeds_but_no_smaller_committee():
    project = load_project({"scale": "small", "repeats": 1})
    (run,) = cell_of(project, "table_4", "toluene", "both_1000").runs
    assert run in cell_of(project, "committee_md17", "toluene", "single_forces").runs
    assert len(cell_of(project, "committee_md17", "toluene", "committee_forces").runs) == 3


def test_a_package_that_is_missing_leaves_its_cells_empty(monkeypatch):
    """They say so; networks, and what was fitted where the package was, stay."""
    find = importlib.util.find_spec
    absent = ("sgdml", "dscribe")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in absent else find(n))
    project = load_project({"scale": "small"})
    cell = cell_of(project, "table_4", "ethanol", "gdml")
    assert cell.missing == "the package sgdml is not installed" and not cell.runs
    assert cell_of(project, "table_2", "ewald", "n3000").missing.startswith("the package dscribe")
    assert cell_of(project, "table_2", "sine", "n3000").runs
    assert cell_of(project, "table_4", "ethanol", "both_1000").runs
    there = {"scale": "small", "results_dir": str(ROOT / "results" / "replication")}
    assert cell_of(load_project(there), "table_4", "ethanol", "gdml").runs


def test_committees_want_seeds(workflow):
    columns = [{"key": "c", "label": "c", "quantity": "energy", "committee": "mean"}]
    run = {"dataset": "md17_ethanol", "target": "energy", "forces": "forces", "method": "sgdml"}
    row = {"key": "a", "label": "a", "unit": "kcal/mol"}
    write_experiment(workflow, "own", [row], columns=columns, run=run | {"n_train": 1000})
    with pytest.raises(ConfigError, match="committee: its members .* sgdml does not depend"):
        load_project({"scale": "demo"}, workflow)


def test_a_family_adjusts_an_architecture_of_the_scale(workflow):
    """A step costs more for larger molecules: equal times are fewer steps there."""
    path = workflow / "workflow/scales/demo.yaml"
    scale = read_yaml(path)
    scale["architectures"] = {"dtnn": {"steps": 7, "ema": 0.5}}
    scale["families"]["md17"]["architectures"] = {"dtnn": {"steps": 3}}
    write_yaml(path, scale)
    cells = load_project({"scale": "demo"}, workflow).cells["architectures_md17"]
    settings = {c.column: c.runs[0].settings for c in cells if c.row == "dtnn"}
    found = {key: (settings[key].steps, settings[key].ema) for key in settings}
    assert found["ethanol_forces"] == (7, 0.5)  # a family of its own at this scale
    assert found["aspirin_forces"] == (3, 0.5)
    scale["families"]["md17"]["architectures"] = {"dtn": {}}
    write_yaml(path, scale)
    place = r"demo.yaml: families: md17: architectures: no architecture 'dtn'.* 'dtnn'"
    with pytest.raises(ConfigError, match=place):
        load_project({"scale": "demo"}, workflow)


def test_an_experiment_says_how_often_it_is_repeated_at_a_scale(workflow):
    folder = workflow / "workflow/experiments"
    table = read_yaml(folder / "table_1.yaml")
    curves = read_yaml(folder / "learning_curves_qm9.yaml")
    for row in table["rows"]:
        row["repeats_at"] = {"U0": {"demo": 3, "small": 2}, "zpve": {"demo": 1}}.get(row["key"], {})
    write_yaml(folder / "table_1.yaml", table)
    write_yaml(folder / "learning_curves_qm9.yaml", curves | {"repeats_at": {"demo": 2}})

    def repeats(name, row, column, **config):
        project = load_project({"scale": "demo"} | config, workflow)
        return len(cell_of(project, name, row, column).runs)

    rows = ("homo", "zpve", "U0")
    assert [repeats("table_1", row, "schnet") for row in rows] == [2, 1, 3]
    assert [repeats("table_1", row, "schnet", repeats=2) for row in rows] == [2, 1, 2]
    assert repeats("learning_curves_qm9", "n25000", "T1") == 2
    assert repeats("learning_curves_qm9", "n25000", "T1", repeats=1) == 1
    # another scale: what it has in general
    assert repeats("learning_curves_qm9", "n25000", "T1", scale="small") == 1
    assert repeats("table_1", "homo", "schnet", scale="small", repeats=3) == 3

    write_yaml(folder / "learning_curves_qm9.yaml", curves | {"repeats_at": {"smal": 2}})
    with pytest.raises(ConfigError, match="qm9.yaml: repeats_at: no scale 'smal'; .*'small'"):
        load_project({"scale": "demo"}, workflow)


def test_a_scale_without_committees_has_single_models(workflow):
    path = workflow / "workflow/scales/demo.yaml"
    scale = read_yaml(path)
    del scale["committee"]
    write_yaml(path, scale)
    project = load_project({"scale": "demo"}, workflow)
    committee = cell_of(project, "committee_md17", "toluene", "committee_forces")
    assert not committee.runs
    assert committee.missing == "committees are not part of the scale demo"
    single = cell_of(project, "table_4", "toluene", "both_1000")
    assert [run.settings.seed for run in single.runs] == [0] and not single.missing
    write_yaml(path, scale | {"committee": 1})
    with pytest.raises(ConfigError, match=r"demo.yaml: committee: 1 is less than"):
        load_project({"scale": "demo"}, workflow)


# ---- scans ---------------------------------------------------------------------------------------
def test_scan_of_any_setting(workflow):
    rows = [
        {"scan": "model.gamma", "values": [5.0, 10.0, 50.0]},
        {"scan": "learning_rate", "values": [0.001, 0.0005], "labels": ["usual", "half"]},
        {"scan": "seed", "values": [1, 2]},
        {"scan": "ema", "values": [0.5]},
    ]
    before = set(load_project({"scale": "demo"}, workflow).runs)
    write_experiment(workflow, "scan", rows)
    project = load_project({"scale": "demo"}, workflow)
    rows = project.experiments["scan"]["rows"]
    assert [r["key"] for r in rows][:2] == ["model.gamma=5", "model.gamma=10"]
    assert [r["label"] for r in rows][2:5] == ["gamma = 50", "usual", "half"]
    found = [r.path for r in project.runs_of("scan")]
    assert len(found) == 7  # γ = 10 and the usual learning rate are the same run
    assert before < set(project.runs)
    assert all(run.path == path for path, run in project.runs.items())


def test_scan_with_too_few_labels(workflow):
    write_experiment(workflow, "scan", [{"scan": "rho", "values": [1, 2], "labels": ["one"]}])
    with pytest.raises(ConfigError, match="scan of rho: 1 labels for 2 values"):
        load_project({"scale": "demo"}, workflow)


# ---- layers of settings --------------------------------------------------------------------------
def spec_of(scale, dataset, **config):
    project = load_project({"scale": scale} | config)
    return next(r.settings for r in project.runs.values() if r.dataset == dataset)


def test_the_protocol_wins_over_the_scale():
    assert spec_of("demo", "qm9").ema == 0.98  # the scale's adjustment of its own protocol
    assert spec_of("demo", "qm9", protocol="paper").ema == 0.0
    assert spec_of("small", "md17_ethanol").validation_interval == 2000
    assert spec_of("small", "md17_ethanol", protocol="tf_code").validation_interval == 5000
    assert spec_of("paper", "c20", protocol="tf_code").learning_rate == 1e-4
    assert spec_of("paper", "c20").learning_rate == 1e-3


def test_a_scale_adjusts_an_architecture(workflow):
    path = workflow / "workflow/scales/demo.yaml"
    scale = read_yaml(path) | {"architectures": {"dtnn": {"steps": 7}}}
    write_yaml(path, scale)
    runs = load_project({"scale": "demo"}, workflow).runs.values()
    steps = {(r.settings.architecture == "dtnn", r.settings.steps) for r in runs}
    assert (True, 7) in steps and (True, 400) not in steps and (False, 7) not in steps
    write_yaml(path, scale | {"architectures": {"dtnm": {"steps": 7}}})
    with pytest.raises(ConfigError, match=r"demo.yaml: architectures: .*did you mean 'dtnn'"):
        load_project({"scale": "demo"}, workflow)


def restrict(workflow, only):
    """Table III with ``only:`` in the column both_1000."""
    path = workflow / "workflow/experiments/table_3.yaml"
    experiment = read_yaml(path)
    next(c for c in experiment["columns"] if c["key"] == "both_1000")["only"] = only
    write_yaml(path, experiment)


def test_a_column_has_only_some_rows_at_a_scale(workflow):
    restrict(workflow, {"demo": ["ethanol"]})
    cells = load_project({"scale": "demo"}, workflow).cells["table_3"]
    left = {(c.row, c.column) for c in cells if c.missing == "left out at the scale demo"}
    assert all(bool(c.runs) == (not c.missing) for c in cells)
    assert ("uracil", "both_1000") in left and ("ethanol", "both_1000") not in left
    assert {column for _, column in left} == {"both_1000", "gdml"}
    assert ("uracil", "gdml") not in left  # as the experiment itself says
    cells = load_project({"scale": "paper"}, workflow).cells["table_3"]
    assert all(c.runs for c in cells)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"dmeo": []}, "both_1000: only: no scale 'dmeo'; did you mean 'demo'"),
        ({"demo": ["ethnol"]}, "both_1000: only: no row 'ethnol'; did you mean 'ethanol'"),
    ],
)
def test_a_column_is_restricted_to_what_there_is(workflow, only, message):
    restrict(workflow, only)
    with pytest.raises(ConfigError, match=message):
        load_project({"scale": "demo"}, workflow)


def test_another_architecture_drops_hyperparameters(workflow):
    rows = [{"key": "d", "label": "DTNN", "run": {"architecture": "dtnn"}}]
    run = {
        "dataset": "md17_ethanol",
        "target": "energy",
        "n_train": 1000,
        "model": {"n_interactions": 6, "gamma": 5.0, "readout": "mean"},
    }
    write_experiment(workflow, "mine", rows, run=run)
    (spec,) = (r.settings for r in load_project({"scale": "demo"}, workflow).runs_of("mine"))
    assert spec.model == {"readout": "mean"}


def test_another_method_keeps_the_readout(workflow):
    rows = [{"key": "m", "label": "mean", "run": {"method": "mean"}}]
    model = {"n_interactions": 6, "cutoff": 5.0, "readout": "mean"}
    run = {"dataset": "qm9", "target": "gap", "n_train": 110000, "model": model}
    write_experiment(workflow, "mine", rows, [{"key": "e", "label": "e", "unit": "eV"}], run)
    (spec,) = (r.settings for r in load_project({"scale": "demo"}, workflow).runs_of("mine"))
    assert spec.model == {"readout": "mean"}
    project = load_project({"scale": "demo"}, workflow)
    gap = [r.settings for r in project.runs_of("baselines") if r.settings.target == "gap"]
    assert len(gap) == 3 and all(s.model["readout"] == "mean" for s in gap)


def test_a_null_hyperparameter_is_the_default(workflow):
    rows = [{"key": "a", "label": "a", "run": {"model": {"n_interactions": None}}}]
    run = {"dataset": "qm9", "target": "U0", "n_train": 110000, "model": {"n_interactions": 3}}
    columns = [{"key": "mae", "label": "MAE", "unit": "eV"}]
    write_experiment(workflow, "mine", rows, columns, run)
    assert set(paths("mine", workflow)) <= set(paths("table_1", workflow))  # T = 6


def test_steps_are_capped_and_multiplied(workflow):
    rows = [{"key": "a", "label": "a"}]
    columns = [
        {"key": "usual", "label": "usual", "unit": "kcal/mol"},
        {"key": "longer", "label": "longer", "unit": "kcal/mol", "times_steps": 3},
    ]
    write_experiment(workflow, "mine", rows, columns)
    project = load_project({"scale": "demo", "steps": 50}, workflow)
    assert [r.settings.steps for r in project.runs_of("mine")] == [50, 150]


# ---- data sets that a scale does not know --------------------------------------------------------
def test_a_data_set_in_no_family_leaves_cells_empty(workflow):
    sources = workflow / "workflow" / "sources.yaml"
    entry = {
        "mine": {
            "title": "mine",
            "module": "schnet.data.md17",
            "licence": "mine",
            "citation": "me",
            "files": {"mine.npz": {"urls": [], "mirror": "mine.npz"}},
        }
    }
    sources.write_text(sources.read_text() + yaml.safe_dump(entry))
    run = {"dataset": "mine", "target": "energy", "n_train": 1000}
    write_experiment(workflow, "own", [{"key": "a", "label": "a"}], run=run)
    for scale in ("demo", "small", "paper"):
        project = load_project({"scale": scale}, workflow)
        (cell,) = project.cells["own"]
        assert not cell.runs and f"in no family of the scale {scale}" in cell.missing
        assert project.runs_of("table_3")


def test_a_data_set_that_cannot_be_made(workflow):
    sources = workflow / "workflow" / "sources.yaml"
    values = yaml.safe_load(sources.read_text())
    del values["md17_uracil"]["reference"]
    sources.write_text(yaml.safe_dump(values, allow_unicode=True))
    project = load_project({"scale": "demo"}, workflow)
    cells = {(c.row, c.column): c for c in project.cells["table_3"]}
    assert "cannot be made" in cells["uracil", "both_1000"].missing
    assert cells["ethanol", "both_1000"].runs


def test_a_mirror_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="mirror: .*absent is not a folder"):
        load_project({"scale": "small", "mirror": str(tmp_path / "absent")})


def test_files_missing_in_the_mirror_leave_their_cells_empty(tmp_path):
    (tmp_path / "md17").mkdir()
    (tmp_path / "md17" / "md17_ethanol.npz").write_bytes(b"")
    project = load_project({"scale": "small", "mirror": str(tmp_path)})
    assert project.datasets() == ["md17_ethanol"]
    cells = {(c.row, c.column): c for c in project.cells["table_3"]}
    assert "not in the mirror" in cells["aspirin", "both_1000"].missing
    assert not cells["ethanol", "both_1000"].missing


def test_sizes_that_a_scale_leaves_out():
    project = load_project({"scale": "small"})
    cells = {(c.row, c.column): c for c in project.cells["table_3"]}
    assert cells["ethanol", "both_50000"].missing == "N = 50,000 is not part of the scale small"


# ---- what has no effect, or two meanings ---------------------------------------------------------
def test_a_default_said_or_not_said_is_the_same_run():
    usual = load_project({"scale": "demo"})
    said = load_project({"scale": "demo", "run": {"model": {"gamma": 10}}})
    networks = {p: r for p, r in usual.runs.items() if r.settings.method == "neural"}
    assert networks
    for path, run in networks.items():
        assert run.settings.stated() == said.runs[path].settings.stated()


def test_stated_settings_make_the_same_run():
    for run in load_project({"scale": "demo"}).runs.values():
        again = make_spec(run.settings.stated())
        assert again.scientific() == run.settings.scientific()
        if run.settings.method == "neural":
            assert not {"tf32", "sgdr_period", "gradient_clipping"} & run.settings.stated().keys()
            assert ("sgdr_cycles" in run.settings.stated()) == (run.settings.schedule == "sgdr")


@pytest.mark.parametrize("key", ["split_seed", "repeat", "data", "split", "engine"])
def test_settings_that_the_workflow_decides_are_refused(workflow, key):
    value = "reference" if key == "engine" else 1
    if key in ("data", "split"):
        value = "x"
    with pytest.raises(ConfigError, match=f"{key}: is decided by the workflow"):
        load_project({"scale": "demo", "run": {key: value}}, workflow)
    write_experiment(workflow, "scan", [{"scan": key, "values": [value]}])
    with pytest.raises(ConfigError, match="scan"):
        load_project({"scale": "demo"}, workflow)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"ema": float("nan")}, "ema"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"n_train": None}, "n_train must be given"),
        ({"model": {"readout": "dipole"}, "forces": "forces"}, "not an energy"),
        ({"model": 5}, "model"),
        ({"seed": 2**70}, "seed"),
        ({"steps": 2.5}, "steps"),
    ],
)
def test_values_that_cannot_be_meant(workflow, run, message):
    base = {"dataset": "md17_ethanol", "target": "energy"}
    rows = [{"key": "a", "label": "a"}]
    write_experiment(workflow, "mine", rows, run=base | {"n_train": 1000} | run)
    with pytest.raises(ConfigError, match=message) as error:
        load_project({"scale": "demo"}, workflow)
    assert "\n" not in str(error.value)


def test_whole_numbers_are_whole(workflow):
    given = {"dataset": "qm9", "target": "U0"}
    assert make_spec(given | {"steps": 30.0}).stated() == make_spec(given | {"steps": 30}).stated()
    assert type(make_spec(given | {"batch_size": 8.0}).batch_size) is int


@pytest.mark.parametrize("content", ["", "- a\n", "scale: demo\nscale: small\n", "a: [\n"])
def test_a_configuration_file_that_is_none(workflow, content):
    (workflow / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match="config.yaml"):
        load_project(None, workflow)


def test_two_runs_in_one_directory_are_refused(workflow, monkeypatch):
    from schnet.project import identity

    monkeypatch.setattr(identity, "DIGITS", 0)
    rows = [{"scan": "gradient_clipping", "values": [1.0, 2.0]}]
    write_experiment(workflow, "scan", rows)
    with pytest.raises(ConfigError, match="two runs share this directory"):
        load_project({"scale": "demo"}, workflow)


# ---- simulations ---------------------------------------------------------------------------------
MODEL = {"experiment": "table_5", "row": "T3_F64_rho0.01", "column": "forces", "label": "a"}


def test_simulations_follow_the_scale():
    demo, paper = (load_project({"scale": scale}).simulations for scale in ("demo", "paper"))
    (modes,) = demo["c20_modes"]
    assert [m.is_file for m in modes.models] == [False, True]
    assert modes.model_files == [
        str(load_project({"scale": "demo"}).runs_of("table_5")[0].model_file)
    ]
    beads = [job.settings["beads"] for job in paper["c20_dynamics"]]
    assert beads == [1, 2, 4, 8, 16]
    assert {job.settings["steps"] for job in paper["c20_dynamics"]} == {2_500_000}
    assert "--beads" in paper["c20_dynamics"][3].options()
    assert len({job.path for job in paper["c20_dynamics"]}) == 5


def test_a_simulation_does_not_move_with_its_folders():
    there = load_project({"scale": "demo", "results_dir": "elsewhere", "data_dir": "other"})
    here = load_project({"scale": "demo"})
    for name, jobs in here.simulations.items():
        assert [j.path for j in jobs] == [j.path for j in there.simulations[name]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structure": "c21"}, "no data set 'c21'; did you mean 'c20'"),
        ({"settings": {"timestep": 0.5}}, "settings: steps must be given"),
        ({"settings": {"steps": 5, "fmax": 0.1}}, "no setting of pimd 'fmax'"),
        ({"settings": {"step": 5}}, "unknown key 'step'; did you mean 'steps'"),
        ({"beads": [0]}, "0 is less than"),
        ({"models": {"a": MODEL | {"row": "T3_F64"}}},
         "no row 'T3_F64'; did you mean"),
        ({"models": {"a": {"label": "a", "released": "force_model"}}}, "nothing is released"),
    ],
)  # fmt: skip
def test_typos_in_a_simulation(workflow, change, message):
    scale = workflow / "workflow/scales/demo.yaml"
    content = read_yaml(scale)
    del content["simulations"]["c20_dynamics"]
    path = workflow / "workflow/simulations/c20_dynamics.yaml"
    write_yaml(scale, content)
    write_yaml(path, read_yaml(path) | {"models": {"a": MODEL}} | change)
    with pytest.raises(ConfigError, match=rf"c20_dynamics.yaml: .*{message}"):
        load_project({"scale": "demo"}, workflow)


def test_a_simulation_of_a_run_that_a_scale_has_not_is_left_out(workflow):
    path = workflow / "workflow/scales/demo.yaml"
    content = read_yaml(path)
    del content["families"]["c20"]
    write_yaml(path, content)
    simulations = load_project({"scale": "demo"}, workflow).simulations
    assert simulations == {"c20_dynamics": [], "c20_modes": []}


def test_a_figure_draws_from_what_its_kind_reads(workflow):
    path = workflow / "workflow/figures/figure_7.yaml"
    figure = read_yaml(path)
    write_yaml(path, figure | {"simulation": "c20_dynamics"})
    with pytest.raises(ConfigError, match="no simulation of modes 'c20_dynamics'"):
        load_project({"scale": "demo"}, workflow)
    del figure["simulation"]
    write_yaml(path, figure | {"experiments": ["table_5"]})
    with pytest.raises(ConfigError, match="normal_modes draws from simulation:"):
        load_project({"scale": "demo"}, workflow)


def test_the_fully_connected_baseline_sees_one_epoch_of_10_000_structures():
    specs = {
        s: load_project({"scale": s}).runs_of("baseline_fully_connected") for s in ("demo", "paper")
    }
    for runs in specs.values():
        settings = {(r.settings.steps, r.settings.batch_size, r.settings.ema) for r in runs}
        assert settings == {(10_000 // 32, 32, 0.0)}
    assert {run.n_train for run in specs["paper"]} == {10_000}
    assert len({run.dataset for run in specs["paper"]}) == 12  # QM9, ISO17, ten of MD17
    assert {run.dataset for run in specs["demo"]} == {"qm9", "iso17", "md17_ethanol"}
    for run in specs["paper"]:
        assert run.settings.forces is None or run.settings.rho == 0  # on forces alone
    cells = load_project({"scale": "demo"}).cells["baseline_fully_connected"]
    missing = {cell.missing for cell in cells if not cell.runs}
    assert missing == {"N = 10,000 is not part of the scale demo"}
