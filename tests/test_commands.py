"""The command line as a user meets it."""

import numpy as np
import pytest
import yaml
from ase.build import molecule
from conftest import random_model, schnet, write_molecules

from schnet.models import save_model


def test_help_and_errors():
    assert "train" in schnet("--help").stdout
    done = schnet("data", "convert", "qm8", "x", "y.h5")
    assert done.returncode == 2 and done.stderr.strip().endswith(
        "no data set 'qm8'; did you mean 'qm9'?"
    )
    done = schnet("train", "absent.yaml", "--device", "cpu")
    assert (
        done.returncode == 2
        and "absent.yaml: no such file" in done.stderr
        and "Traceback" not in done.stderr
    )
    done = schnet("train", "{}", "--threads", "0")
    assert done.returncode == 2 and "--threads: 0 is less than 1" in done.stderr


def test_describe_show_and_predict(tmp_path):
    from ase.io import read, write

    store = write_molecules(tmp_path / "t.h5", 8)
    done = schnet("data", "describe", store.path, "-o", tmp_path / "d.png")
    assert (
        "8 structures" in done.stdout
        and "kcal" not in done.stdout
        and (tmp_path / "d.png").stat().st_size > 5000
    )
    assert (
        schnet("data", "show", store.path, 3, "-o", tmp_path / "s.png").returncode == 0
        and (tmp_path / "s.png").stat().st_size > 5000
    )
    assert "it has 8" in schnet("data", "show", store.path, 99, "-o", tmp_path / "x.png").stderr
    model = random_model()
    save_model(tmp_path / "m.pt", model, target="energy", unit="eV", force_unit="eV/Å")
    write(tmp_path / "in.extxyz", [molecule("H2O"), molecule("CH4")])
    assert (
        schnet(
            "predict",
            tmp_path / "m.pt",
            tmp_path / "in.extxyz",
            "-o",
            tmp_path / "out.extxyz",
            "--device",
            "cpu",
        ).returncode
        == 0
    )
    out = read(tmp_path / "out.extxyz", ":")
    from schnet.simulation.calculator import SchNetCalculator

    for atoms, start in zip(out, (molecule("H2O"), molecule("CH4")), strict=True):
        start.calc = SchNetCalculator(tmp_path / "m.pt")
        assert atoms.info["schnet_energy"] == pytest.approx(start.get_potential_energy(), abs=1e-5)
        assert atoms.arrays["schnet_forces"] == pytest.approx(start.get_forces(), abs=1e-5)


def test_a_run_from_raw_file_to_metrics_by_hand(tmp_path):
    """Each arrow of the workflow is one command."""
    rng = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    z, r = ethanol.numbers, ethanol.positions + rng.normal(0, 0.05, (80, len(ethanol), 3))
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "md17_ethanol.npz", z=z, R=r, E=(r**2).sum((1, 2)), F=-2 * r)
    for command in (
        ("data", "convert", "md17_ethanol", tmp_path / "raw", tmp_path / "d.h5"),
        ("split", tmp_path / "d.h5", tmp_path / "s.npz", "--n-train", 40, "--n-validation", 10),
    ):
        done = schnet(*command)
        assert done.returncode == 0, done.stderr
    run = {
        "dataset": "md17_ethanol",
        "data": str(tmp_path / "d.h5"),
        "split": str(tmp_path / "s.npz"),
        "target": "energy",
        "steps": 20,
        "validation_interval": 10,
        "model": {"n_interactions": 1, "n_features": 16},
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text(yaml.safe_dump(run))
    assert schnet("train", tmp_path / "run" / "settings.yaml", "--device", "cpu").returncode == 0
    done = schnet("evaluate", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 0 and "test: energy MAE" in done.stdout
    # other data or another split: trained again, and the old errors do not stand beside it
    split = tmp_path / "other.npz"
    schnet("split", tmp_path / "d.h5", split, "--n-train", 40, "--n-validation", 10, "--seed", 1)
    settings = tmp_path / "run" / "settings.yaml"
    before = (tmp_path / "run" / "metrics.json").read_text()
    again = ("train", settings, "--split", split, "-o", tmp_path / "run", "--device", "cpu")
    done = schnet(*again)
    assert done.returncode == 0 and "have changed since it was finished" in done.stderr
    assert (tmp_path / "run" / "metrics.json").read_text() != before
    # the run file of a finished run is itself a run
    finished = ("train", tmp_path / "run" / "run.yaml", "--device", "cpu", "-o")
    done = schnet(*finished, tmp_path / "again")
    assert done.returncode == 0 and "made from" not in done.stderr
    models = [(tmp_path / name / "model.pt").read_bytes() for name in ("run", "again")]
    assert models[0] == models[1]
    done = schnet(*finished, tmp_path / "other", "--split", tmp_path / "s.npz")
    assert done.returncode == 0
    assert "s.npz is not what this run was made from (digest" in done.stderr
    split.unlink()
    done = schnet("evaluate", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 2 and "say where it is: --split FILE" in done.stderr


def test_small_sizes_beyond_the_data_are_refused(tmp_path):
    write_molecules(tmp_path / "t.h5", 8)
    done = schnet(
        "split", tmp_path / "t.h5", tmp_path / "s.npz", "--n-train", 100, "--n-validation", 1
    )
    assert (
        done.returncode == 2
        and "the data set has 8" in done.stderr
        and not (tmp_path / "s.npz").exists()
    )
