"""The DAG as a user meets it: targets, what is done again and what is not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import copy_small_workflow, copy_workflow, snakemake, snapshot

from schnet.errors import ConfigError
from schnet.files import read_yaml, write_yaml
from schnet.project import load_project

STEPS = ["repeats=1", "run={steps: 30, validation_interval: 10}"]


def crystals(checkout, *config, more=()):
    """Table II of the demo, with short trainings: the quickest piece of the DAG with all rules."""
    return snakemake("table_2", *more, "--config", *STEPS, *config, cwd=checkout)


@pytest.fixture
def checkout(tmp_path):
    return copy_small_workflow(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which Table II has been made; tests copy it before they change it."""
    folder = copy_small_workflow(tmp_path_factory.mktemp("finished"))
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
    targets = [*project.experiments, *project.figures, "architectures", "all"]
    done = snakemake("-n", "--quiet", "--config", f"scale={scale}", "--", *targets, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (checkout / "results").exists() and not (checkout / "data").exists()


def test_only_networks_ask_for_a_gpu(checkout):
    """On a cluster; members of a job ask for the same, so the others have jobs of their own."""
    options = ["-n", "--profile", "slurm", "--", "baselines"]
    done = snakemake(*options, cwd=checkout)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    jobs = re.split(r"^ *rule ", said, flags=re.MULTILINE)
    asked = {"kernel_ridge": set(), "mean": set(), "schnet": set()}
    for text in (text for text in jobs if text.startswith("train:")):
        method = next(name for name in asked if f"/{name}-" in text)
        asked[method].add(re.search(r"gres=([^,]*)", text)[1])
    assert asked == {"kernel_ridge": {""}, "mean": {""}, "schnet": {"gpu:1"}}


def test_a_kernel_is_given_the_memory_of_its_matrices(checkout):
    done = snakemake("-n", "--config", "scale=paper", "--", "baselines", cwd=checkout)
    jobs = re.split(r"^(?:local)?rule ", done.stdout + done.stderr, flags=re.MULTILINE)
    asked = {"kernel_ridge": set(), "mean": set(), "schnet": set()}
    for text in (text for text in jobs if text.startswith("train:")):
        method = next(name for name in asked if f"/{name}-" in text)
        asked[method] |= {int(number) for number in re.findall(r"mem_mb=(\d+)", text)}
    usual = load_project({"scale": "paper"}).scale["resources"]["mem_mb"]
    matrix = 8e-6 * 25_000**2
    assert asked["mean"] == asked["schnet"] == {usual}
    assert min(asked["kernel_ridge"]) > usual + 6 * matrix


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


def test_snakemakes_own_report_opens_with_a_description(finished):
    done = crystals(finished, more=["--report", "report.html"])
    assert done.returncode == 0, done.stdout + done.stderr
    page = (finished / "report.html").read_text()
    assert "Replication of" in page and "at the scale <strong>demo</strong>" in page


def test_time_stamps_are_no_reason_to_compute_again(done_before):
    for file in (done_before / "data" / "demo").rglob("*"):
        file.touch()
    done = crystals(done_before)
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize("older", ["splits", "neighbours"])
def test_copied_data_leave_nothing_out(done_before, older):
    """Without Snakemake's memory, with digests newer than what was made of the data."""
    shutil.rmtree(done_before / ".snakemake")
    shutil.rmtree(done_before / "results/demo/runs")
    (done_before / "results/demo/tables/table_2.md").unlink()
    files = {
        "splits": done_before / "results/demo/splits",
        "neighbours": done_before / "data/demo/neighbours",
    }
    for name, folder in files.items():
        for file in folder.rglob("*.*"):
            os.utime(file, None if name != older else (1e9, 1e9))
    done = crystals(done_before, more=["-n"])
    said = done.stdout + done.stderr
    made = {"splits": "split", "neighbours": "neighbours"}[older]
    for rule in (made, "train", "table"):
        assert re.search(rf"^{rule} +[1-9]", said, re.MULTILINE), said


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


# ---- killed --------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_works_after_a_kill(done_before, number):
    """kill -9 of snakemake alone, or Ctrl-C, which everything in the terminal gets."""
    values = {"steps": 400, "validation_interval": 200, "checkpoint_interval": 20}
    config = {"scale": "demo", "repeats": 1, "run": values}
    write_yaml(done_before / "config.yaml", config)
    run = load_project(config, done_before).runs_of("table_2")[0]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", str(run.model_file)]
    folder = done_before / run.folder
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command, cwd=done_before, start_new_session=True, **quiet)
    until = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    if number == signal.SIGKILL:
        killed.kill()
    else:
        os.killpg(killed.pid, number)
    killed.wait()
    assert not run.model_file.exists()
    again = snakemake(str(run.model_file), cwd=done_before)
    log = (done_before / f"results/demo/logs/train/{run.path}.log").read_text()
    assert again.returncode == 0, again.stdout + again.stderr + log
    assert "continuing from step" in log


def test_two_at_once_are_refused(done_before):
    """The lock of a snakemake that is alive holds."""
    config = {"scale": "demo", "repeats": 1, "run": {"steps": 100_000}}
    write_yaml(done_before / "config.yaml", config)
    run = load_project(config, done_before).runs_of("table_2")[0]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", str(run.model_file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=done_before, **quiet) as first:
        until = time.monotonic() + 120
        while not (done_before / run.folder / ".lock").exists():
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        second = snakemake(str(run.model_file), cwd=done_before)
        assert first.poll() is None
        first.kill()
    assert second.returncode != 0 and "LockException" in second.stdout + second.stderr


# ---- names ---------------------------------------------------------------------------------------
ODD = """wörk'; touch broken; echo "$(touch broken)" `touch broken` $HOME & > #"""


def smallest_demo(folder):
    """A workflow with one training of crystals and one of C20, tables, figures and a simulation."""
    folder.mkdir()
    copy_workflow(folder)
    kept = {
        "experiments": {"table_2", "table_5"},
        "figures": {"figure_10", "figure_11", "figure_4"},
        "simulations": {"c20_dynamics"},
    }
    for kind, names in kept.items():
        for file in (folder / "workflow" / kind).glob("*.yaml"):
            if file.stem not in names:
                file.unlink()
    for name, row in (("table_2", -1), ("table_5", 0)):
        file = folder / "workflow" / "experiments" / f"{name}.yaml"
        experiment = read_yaml(file)
        experiment["rows"] = [experiment["rows"][row]]
        experiment["columns"] = experiment["columns"][:2]
        del experiment["claims"]  # on rows that are gone
        write_yaml(file, experiment)
    file = folder / "workflow" / "scales" / "demo.yaml"
    scale = read_yaml(file)
    scale["families"] = {
        "materials": {
            "n_train": {3000: 40, 60000: None},
            "n_validation": 8,
            "generate": {"crystals": 70},
        },
        "c20": {
            "n_train": {20000: 40},
            "n_validation": 8,
            "generate": {"trajectories": 2, "frames": 30},
        },
    }
    dynamics = scale["simulations"].pop("c20_dynamics")
    dynamics |= {"beads": [1], "settings": {"steps": 40, "interval": 2}}
    scale["simulations"] = {"c20_dynamics": dynamics}
    write_yaml(file, scale)
    return folder


def test_paths_that_a_shell_would_read(tmp_path):
    """Everything, from raw data to the report, where nothing but its name can be meant."""
    checkout = smallest_demo(tmp_path / f"checkout {ODD}".replace("/", ""))
    config = {
        "scale": "demo",
        "repeats": 1,
        "run": {"steps": 10, "validation_interval": 5},
        "data_dir": f"dätä {ODD}",
        "results_dir": f"results {ODD}",
    }
    write_yaml(checkout / "config.yaml", config)
    before = {file.name for file in checkout.iterdir()}
    done = snakemake(cwd=checkout)
    logs = [file.read_text() for file in checkout.glob("*/*/logs/**/*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *logs])
    results = checkout / config["results_dir"] / "demo"
    for name in ("report.html", "tables/table_2.html", "figures/figure_11.png"):
        assert (results / name).stat().st_size > 0
    made = {file.name for file in checkout.iterdir()} - before
    assert made == {".snakemake", config["data_dir"], config["results_dir"]}
    assert "Nothing to be done" in (again := snakemake(cwd=checkout)).stdout + again.stderr


def test_a_mirror_that_a_shell_would_read(checkout):
    mirror = checkout / ODD
    (mirror / "md17").mkdir(parents=True)
    for file in ("md17_ethanol.npz", "rmd17_ethanol.npz"):
        (mirror / "md17" / file).write_bytes(b"not what upstream has")
    write_yaml(checkout / "config.yaml", {"scale": "small", "mirror": str(mirror)})
    done = snakemake("data/mirror/raw/md17_ethanol/sources.json", cwd=checkout)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"{mirror}/md17/md17_ethanol.npz: " in done.stderr
    assert not list(checkout.rglob("broken"))


@pytest.mark.parametrize("key", ["data_dir", "results_dir", "mirror"])
@pytest.mark.parametrize(
    "path", ["a\nb", "a\tb", "a\x00b", "a\x1b[31m", "a\udcffb", "{dataset}", "-rf"]
)
def test_paths_that_cannot_be_meant(key, path):
    with pytest.raises(ConfigError, match=f"^config.yaml: {key}: .*(rename it|whole path)$"):
        load_project({"scale": "demo", key: path})
