"""The DAG as a user meets it: targets, what is done again and what is not."""

import shutil

import pytest
from conftest import copy_workflow, snakemake, snapshot

from schnet.files import read_yaml
from schnet.project import load_project

STEPS = ["repeats=1", "run={steps: 30, validation_interval: 10}"]


def crystals(checkout, *config, more=()):
    """Table II of the demo, with short trainings: the quickest piece of the DAG with all rules."""
    return snakemake("table_2", *more, "--config", *STEPS, *config, cwd=checkout)


@pytest.fixture
def checkout(tmp_path):
    return copy_workflow(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which Table II has been made; tests copy it before they change it."""
    folder = copy_workflow(tmp_path_factory.mktemp("finished"))
    done = crystals(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def done_before(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", dirs_exist_ok=True)
    return tmp_path / "copy"


@pytest.mark.parametrize("scale", ["demo", "small", "paper"])
def test_dry_run_of_every_named_target(checkout, scale):
    project = load_project({"scale": scale})
    targets = [*project.experiments, *project.figures, "all"]
    done = snakemake("-n", "--quiet", "--config", f"scale={scale}", "--", *targets, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (checkout / "results").exists() and not (checkout / "data").exists()


def test_single_file_target_and_clear_error(checkout):
    target = "results/demo/figures/figure_3.png"
    assert snakemake("-n", "--quiet", "--", target, cwd=checkout).returncode == 0
    done = snakemake("-n", "--config", "scael=small", cwd=checkout)
    assert done.returncode != 0 and "did you mean 'scale'" in done.stdout + done.stderr


def test_any_experiment_file_is_a_target(checkout):
    folder = checkout / "workflow" / "experiments"
    shutil.copy(folder / "table_2.yaml", folder / "my_crystals.yaml")
    done = snakemake("-n", "my_crystals", cwd=checkout)
    assert done.returncode == 0 and "results/demo/tables/my_crystals.md" in done.stdout


@pytest.mark.parametrize("execution", [["threads=2", "device=cpu"], ["engine=table"]])
def test_how_it_is_computed_is_no_reason_to_compute_again(finished, execution):
    done = crystals(finished, *execution)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_time_stamps_are_no_reason_to_compute_again(done_before):
    for file in (done_before / "data" / "demo").rglob("*"):
        file.touch()
    done = crystals(done_before)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_same_data_made_again_train_nothing_again(done_before):
    before = snapshot(done_before / "results", "model.pt")
    (done_before / "data" / "demo" / "materials_project.h5").unlink()
    done = crystals(done_before, more=["--forcerun", "convert"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(done_before / "results", "model.pt") == before
    logs = [f.read_text() for f in (done_before / "results/demo/logs/train").rglob("*.log")]
    assert logs and all("finished before" in text for text in logs)


def test_scientific_settings_make_new_directories_beside_the_old(done_before):
    before = snapshot(done_before / "results" / "demo" / "runs")
    other = "run={steps: 30, validation_interval: 10, learning_rate: 0.0005}"
    done = snakemake("table_2", "--config", "repeats=1", other, cwd=done_before)
    assert done.returncode == 0, done.stdout + done.stderr
    after = snapshot(done_before / "results" / "demo" / "runs")
    assert before.items() < after.items()
    rates = [
        read_yaml(f)["run"]["learning_rate"]
        for f in (done_before / "results" / "demo" / "runs").rglob("run.yaml")
    ]
    assert sorted(rates) == [0.0005, 0.0005, 0.001, 0.001]


def test_a_training_that_fails_leaves_the_old_outputs(done_before):
    """Other data are a reason to train again; until there is a new model, the old one stays."""
    before = snapshot(done_before / "results" / "demo" / "runs", "model.pt", "run.yaml")
    data = done_before / "data" / "demo"
    (data / "materials_project.h5").write_text("damaged")
    (data / "materials_project.digest").write_text("of other data\n")
    done = crystals(done_before)
    assert done.returncode != 0
    assert "not an HDF5 file" in "".join(
        f.read_text() for f in (done_before / "results/demo/logs").rglob("*.log")
    )
    assert snapshot(done_before / "results" / "demo" / "runs", "model.pt", "run.yaml") == before


def test_committed_results_are_nowhere_written():
    for scale in ("demo", "small", "paper"):
        assert "replication" not in load_project({"scale": scale}).results.parts
