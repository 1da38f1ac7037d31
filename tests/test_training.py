"""Training: resumes bit for bit, stops with reasons, does what the loss says."""

import errno
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import random_model, write_molecules

from schnet import provenance
from schnet.data.splits import make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.errors import ConfigError, DataError, ModelError, SchNetError, TrainingError
from schnet.evaluation import deviation, evaluate
from schnet.files import read_json, read_yaml
from schnet.methods import fit
from schnet.models import load_model, save_model
from schnet.run import make_spec, settings_of
from schnet.training.adam import Adam
from schnet.training.loop import Trainer, train
from schnet.training.objective import loss_function
from schnet.training.schedule import learning_rate
from schnet.verify import is_current, verify


def same_file(a, b):
    return a.read_bytes() == b.read_bytes()


def start(run, out, *options, **environment):
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(run))
    command = [
        sys.executable,
        "-m",
        "schnet",
        "train",
        str(file),
        "-o",
        str(out),
        "--device",
        "cpu",
        *options,
    ]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def wait_for(file, process):
    until = time.monotonic() + 60
    while not file.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    assert file.exists()


def kill_after_checkpoint(run, out, number):
    process = start(run, out)
    wait_for(out / "checkpoint.pt", process)
    process.send_signal(number)
    return process.wait(), process.stderr.read()


DIPOLE = {"forces": None, "model": {"n_interactions": 2, "n_features": 16, "readout": "dipole"}}


@pytest.mark.parametrize("settings", [{}, {"engine": "reference"}, DIPOLE])
def test_killed_and_resumed_equals_uninterrupted(toy_run, tmp_path, settings):
    run = toy_run | {"steps": 400} | settings
    train(make_spec(run), tmp_path / "whole", device="cpu")
    code, _ = kill_after_checkpoint(run, tmp_path / "killed", signal.SIGKILL)
    assert code == -signal.SIGKILL and not (tmp_path / "killed" / "model.pt").exists()
    assert not list((tmp_path / "killed").glob("model*"))
    process = start(run, tmp_path / "killed", "--keep-checkpoint")
    message = process.communicate()[1]
    assert process.returncode == 0 and "continuing from step" in message
    assert same_file(tmp_path / "whole" / "model.pt", tmp_path / "killed" / "model.pt")
    first, second = (
        pd.read_csv(tmp_path / k / "history.csv").drop(columns="seconds")
        for k in ("whole", "killed")
    )
    pd.testing.assert_frame_equal(first, second)
    # outputs that get lost are back without training again
    for name in ("model.pt", "history.csv", "run.yaml", "metrics.json"):
        (tmp_path / "killed" / name).unlink()
    message = start(run, tmp_path / "killed").communicate()[1]
    assert "continuing from step 400" in message and same_file(
        tmp_path / "whole" / "model.pt", tmp_path / "killed" / "model.pt"
    )
    for name in ("history.csv", "run.yaml", "metrics.json"):
        assert (tmp_path / "killed" / name).exists()
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()


def test_sigterm_writes_a_checkpoint(toy_run, tmp_path):
    run = toy_run | {"steps": 100_000, "checkpoint_interval": 20}
    code, message = kill_after_checkpoint(run, tmp_path / "run", signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "checkpoint written at step" in message
    step = int(message.split("written at step ")[1].split(";")[0].replace(",", ""))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == step


def test_a_damaged_checkpoint_is_refused(toy_run, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(make_spec(toy_run), tmp_path, device="cpu")


def test_how_a_run_is_executed_is_no_part_of_it(toy_run, toy, tmp_path):
    """Other paths, engine, threads and checkpoints: the checkpoint is taken, the model the same."""
    run = toy_run | {"engine": "reference"}
    train(make_spec(run), tmp_path / "whole", device="cpu")
    interrupted = Trainer(make_spec(run), tmp_path / "run", device="cpu")
    for _ in range(5):
        interrupted.train_step()
    interrupted.out.mkdir()
    interrupted.state.save(interrupted.checkpoint, interrupted.identity)
    store, split = toy
    (tmp_path / "moved").mkdir()
    moved = {
        "data": str(shutil.copy(store.path, tmp_path / "moved" / "d.h5")),
        "split": str(shutil.copy(split, tmp_path / "moved" / "s.npz")),
        "checkpoint_interval": 1000,
    }
    train(make_spec(run | moved), tmp_path / "run", threads=2, device="cpu")
    assert same_file(tmp_path / "whole" / "model.pt", tmp_path / "run" / "model.pt")
    shutil.copy(tmp_path / "whole" / "checkpoint.pt", tmp_path / "run" / "checkpoint.pt")
    train(make_spec(run | {"engine": "table"}), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    "change, what",
    [
        ({"rho": 0.5}, r"other settings \(rho\)"),
        ({"seed": 3}, r"other settings \(seed\)"),
        ({"model": {"n_interactions": 1, "n_features": 16}}, r"other settings \(model\)"),
        ("data", "other data and another split"),
        ("split", "another split"),
    ],
)
def test_a_checkpoint_of_another_run_is_set_aside(toy_run, toy, tmp_path, caplog, change, what):
    trainer = Trainer(make_spec(toy_run), tmp_path / "run", device="cpu")
    (tmp_path / "run").mkdir()
    trainer.state.save(trainer.checkpoint, trainer.identity)
    store, _ = toy
    if change == "data":
        store = write_molecules(tmp_path / "other.h5", seed=1)
    if change in ("data", "split"):
        parts = make_split(store, n_train=80, n_validation=16, seed=5)
        save_split(tmp_path / "other.npz", store, parts)
        change = {"data": str(store.path), "split": str(tmp_path / "other.npz")}
    before = trainer.checkpoint.read_bytes()
    train(make_spec(toy_run | change), tmp_path / "alone", device="cpu")
    train(make_spec(toy_run | change), tmp_path / "run", device="cpu")
    assert re.search(f"of a training with {what}; now checkpoint.other.pt", caplog.text)
    assert (tmp_path / "run" / "checkpoint.other.pt").read_bytes() == before
    assert same_file(tmp_path / "alone" / "model.pt", tmp_path / "run" / "model.pt")


def test_sizes_of_the_split_must_be_those_of_the_run(toy_run, tmp_path):
    sizes = {"n_train": 80, "n_validation": 16}
    Trainer(make_spec(toy_run | sizes), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match=r"has 80 train structures, but .* n_train: 70"):
        Trainer(make_spec(toy_run | sizes | {"n_train": 70}), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match=r"has 16 validation structures, .* n_validation: 1,000"):
        Trainer(make_spec(toy_run | sizes | {"n_validation": 1000}), tmp_path, device="cpu")


def test_not_a_number_stops_with_step_and_batch(toy_run, tmp_path):
    trainer = Trainer(make_spec(toy_run), tmp_path, device="cpu")
    trainer.train_step()
    with torch.no_grad():
        trainer.flat.tensor[:] = float("nan")
    with pytest.raises(TrainingError, match=r"is not a number at step 1, batch of m\d+"):
        trainer.train_step()


def test_divergence_stops(toy_run, tmp_path):
    with pytest.raises(TrainingError, match="diverged|not a number"):
        train(
            make_spec(toy_run | {"learning_rate": 1e4, "schedule": "exponential", "steps": 2000}),
            tmp_path,
            device="cpu",
        )
    assert not (tmp_path / "model.pt").exists()


def test_training_learns_and_reports(toy_run, tmp_path):
    run = toy_run | {"steps": 600, "validation_interval": 50, "ema": 0.98}
    train(make_spec(run), tmp_path, device="cpu")
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["ema_loss"].iloc[-1] < 0.2 * history["raw_loss"].iloc[0]
    metrics = evaluate(tmp_path)
    test = metrics["parts"]["test"]
    assert test["energy"]["n"] == 24 and test["forces"]["mae"] < 0.5
    assert metrics["alternatives"]["raw"]["test"]["energy"]["unit"] == "eV"
    assert test["energy"]["largest"][0]["id"].startswith("m")
    about = read_yaml(tmp_path / "run.yaml")
    assert len(about["data"]["digest"]) == len(about["data"]["split_digest"]) == 64
    assert about["provenance"]["packages"]["torch"] == torch.__version__
    assert about["run"]["seed"] == 0 and about["result"]["steps"] == 600
    assert not {"hostname", "user"} & set(about["provenance"])
    assert not {"data", "split", "engine", "device"} & set(about["run"])
    assert about["execution"]["data"] == run["data"] and about["execution"]["device"] == "cpu"
    assert about["result"]["seconds"] > 0 and about["result"]["n_train"] == 80
    assert read_json(tmp_path / "metrics.json") == metrics


def test_the_hardware_is_what_was_used(toy_run, tmp_path, monkeypatch):
    """A GPU that is there, but idle, is not named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "an idle GPU")
    train(make_spec(toy_run | {"steps": 10}), tmp_path, device="cpu")
    assert "GPU" not in (tmp_path / "run.yaml").read_text()
    assert read_yaml(tmp_path / "run.yaml")["result"]["hardware"] == provenance.hardware("cpu")
    assert provenance.hardware("cuda") == "an idle GPU"


def test_run_yaml_of_a_finished_run_can_be_trained(toy_run, tmp_path):
    """By hand or finished, the file says the same run."""
    run = toy_run | {"steps": 20, "engine": "reference"}
    assert start(run, tmp_path / "first").wait(60) == 0
    again = [sys.executable, "-m", "schnet", "train", str(tmp_path / "first" / "run.yaml")]
    subprocess.run([*again, "-o", str(tmp_path / "second"), "--device", "cpu"], check=True)
    first, second = (read_yaml(tmp_path / k / "run.yaml") for k in ("first", "second"))
    assert first["run"] == second["run"] and first["execution"] == second["execution"]
    assert first["execution"]["engine"] == "reference"
    assert same_file(tmp_path / "first" / "model.pt", tmp_path / "second" / "model.pt")


def test_a_finished_run_is_not_trained_again_unless_something_is_lost(toy_run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = make_spec(toy_run)
    fit(run, tmp_path, device="cpu")
    files = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    fit(run, tmp_path, device="cpu")
    assert "finished before" in caplog.text
    assert files == {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    (tmp_path / "history.csv").unlink()
    fit(run, tmp_path, device="cpu")
    assert "continuing from step 60" in caplog.text and (tmp_path / "history.csv").exists()


def test_evaluation_takes_moved_files(toy_run, toy, tmp_path):
    train(make_spec(toy_run), tmp_path / "run", device="cpu")
    store, split = toy
    moved = {"data": tmp_path / "moved.h5", "split": tmp_path / "moved.npz"}
    shutil.move(store.path, moved["data"])
    shutil.move(split, moved["split"])
    with pytest.raises(DataError, match="is not here"):
        evaluate(tmp_path / "run")
    metrics = evaluate(tmp_path / "run", engine="table", **moved)
    assert metrics["engine"] == "table" and metrics["parts"]["test"]["energy"]["n"] == 24


def test_forces_judge_energies_and_nothing_else(tmp_path):
    """What a property is says whether its models have forces, not how it is described."""
    for kind, description in (("energy", "in any words"), ("other", "total energy")):
        folder = tmp_path / kind
        molecules = write_molecules(folder / "m.h5", 40)
        rows = [molecules.structure(k) for k in range(40)]
        properties = {
            "energy": Property("eV", description, kind=kind),
            "forces": Property("eV/Å", "forces", per_atom=True, kind="forces"),
        }
        write_store(folder / "t.h5", rows, properties, name="t")
        store = Store(folder / "t.h5")
        save_split(folder / "s.npz", store, make_split(store, n_train=20, n_validation=5, seed=0))
        run = {
            "dataset": "t",
            "data": str(store.path),
            "split": str(folder / "s.npz"),
            "target": "energy",
            "model": {"n_interactions": 1, "n_features": 16},
            "steps": 5,
            "batch_size": 8,
        }
        train(make_spec(run), folder / "run", device="cpu")
        judged = set(evaluate(folder / "run")["parts"]["test"])
        assert judged == ({"energy", "forces"} if kind == "energy" else {"energy"})


@pytest.fixture
def finished(toy_run, tmp_path):
    """The directory of a short run, trained and evaluated.

    With Adam's usual β₂ its predictions are large enough for small changes to be noticed.
    """
    train(make_spec(toy_run | {"adam_beta2": 0.999}), tmp_path / "run", device="cpu")
    evaluate(tmp_path / "run")
    return tmp_path / "run"


def verify_by_command(folder, *options):
    command = [sys.executable, "-m", "schnet", "verify", str(folder), "--device", "cpu"]
    return subprocess.run([*command, *options], capture_output=True, text=True)


def test_a_run_verifies(finished, capsys):
    before = {f.name: f.read_bytes() for f in finished.iterdir()}
    assert is_current(finished) is None
    done = verify_by_command(finished)
    assert done.returncode == 0 and "comes out: history" in done.stdout
    assert is_current(finished) is True
    found = read_json(finished / "verified.json")
    assert found["code"] == provenance.code() and found["differences"]["history"] < 1e-5
    assert found["hardware"] == provenance.hardware("cpu") and found["packages"]["torch"]
    after = {f.name: f.read_bytes() for f in finished.iterdir() if f.name != "verified.json"}
    assert before == after
    # where every prediction was not kept, those of the named structures are looked at
    (finished / "predictions.h5").unlink()
    assert verify(finished) and "named structures" in capsys.readouterr().out
    assert verify(finished, structures=6) and "error of 6 structures" in capsys.readouterr().out
    assert verify(finished, steps=3) and "beyond step 3" in capsys.readouterr().out
    # where the model was not kept either, only the first steps
    (finished / "model.pt").unlink()
    done = verify_by_command(finished)
    assert done.returncode == 0 and "comes out: history" in done.stdout
    assert done.stdout.endswith("; errors not computed again: the model was not kept\n")
    assert list(read_json(finished / "verified.json")["differences"]) == ["history"]
    done = verify_by_command(finished, "--steps", "3")
    assert done.returncode == 1 and "nothing is left to compare" in done.stdout
    # what was verified is not what is there
    (finished / "metrics.json").write_text((finished / "metrics.json").read_text() + " ")
    assert is_current(finished) is None
    # and nothing can say whether its errors are true
    done = verify_by_command(finished)
    assert done.returncode == 1 and "metrics.json: has changed since" in done.stdout
    (finished / "verified.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"verified.json: is not what verify writes; delete it"):
        is_current(finished)
    (finished / "history.csv").unlink()
    assert "history.csv: no such file" in verify_by_command(finished).stdout


@pytest.mark.parametrize("quantity", ["energy", "forces"])
@pytest.mark.parametrize("structures", [5000, 6])
def test_errors_of_another_size_do_not_verify(finished, quantity, structures, capsys):
    (finished / "predictions.h5").unlink()
    metrics = read_json(finished / "metrics.json")
    metrics["parts"]["test"][quantity]["mae"] *= 0.98 if structures == 5000 else 5
    (finished / "metrics.json").write_text(json.dumps(metrics))
    assert not verify(finished, structures=structures)
    assert f"{quantity} error of" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("file", ["metrics.json", "history.csv", "model.pt"])
def test_an_edited_run_does_not_verify(finished, file, kept, capsys):
    path = finished / file
    if not kept:
        (finished / "predictions.h5").unlink()
    if file == "metrics.json":
        metrics = read_json(path)
        energy = metrics["parts"]["test"]["energy"]
        energy["mae"] *= 0.9
        path.write_text(json.dumps(metrics))
    elif file == "history.csv":
        history = pd.read_csv(path)
        history.loc[0, "raw_loss"] *= 0.9
        history.to_csv(path, index=False)
    else:
        content = torch.load(path, weights_only=True)
        content["state"]["scale"] *= 1.1
        torch.save(content, path)
    assert not verify(finished)
    assert "does not come out" in capsys.readouterr().out and is_current(finished) is False


def test_verifying_wants_the_same_data(finished, toy, tmp_path):
    store, _ = toy
    write_molecules(store.path, seed=1)
    done = verify_by_command(finished)
    assert done.returncode == 1 and f"trained with another {store.path} than" in done.stdout
    assert "Traceback" not in done.stderr and is_current(finished) is None


def test_code_that_has_changed_verifies_nothing(finished, monkeypatch):
    assert verify(finished)
    monkeypatch.setattr(provenance, "code", lambda: {"models": "changed"})
    assert is_current(finished) is None


def test_evaluation_by_reference_and_engine_agree(toy_run, tmp_path):
    train(make_spec(toy_run), tmp_path, device="cpu")
    fast = evaluate(tmp_path)["parts"]["test"]
    slow = evaluate(tmp_path, engine="reference")["parts"]["test"]
    for q in ("energy", "forces"):
        assert fast[q]["mae"] == pytest.approx(slow[q]["mae"], rel=1e-4)


def test_deviations_are_those_of_atomization_energies(tmp_path):
    """Single atoms are taken from energies alone; a heat capacity with references keeps them."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 6, 40)
    binding, heat = rng.normal(0, 2, 40), rng.normal(5, 1, 40)
    references = np.zeros(100)
    references[[1, 6]] = -13.0, -1030.0
    numbers = [rng.choice([1, 6], n) for n in sizes]
    total = [b + references[z].sum() for b, z in zip(binding, numbers, strict=True)]
    structures = [
        Structure(f"m{k}", z, rng.normal(0, 3, (len(z), 3)), {"U0": total[k], "Cv": heat[k]})
        for k, z in enumerate(numbers)
    ]
    properties = {"U0": Property("eV", "energy"), "Cv": Property("cal/mol K", "heat capacity")}
    atomrefs = {"U0": references, "Cv": np.full(100, 3.0)}
    write_store(tmp_path / "x.h5", structures, properties, name="x", atomrefs=atomrefs)
    store, some = Store(tmp_path / "x.h5"), np.array([31, 4, 17, 8])
    true = np.array(total)[some]
    assert deviation(store, "U0", some, true) == pytest.approx(binding[some].std(), rel=1e-9)
    assert deviation(store, "Cv", some, heat[some]) == pytest.approx(heat[some].std(), rel=1e-12)


def test_metrics_hold_the_deviation_of_the_target(toy_run, tmp_path):
    fit(make_spec(toy_run | {"method": "mean", "model": {}, "forces": None}), tmp_path / "run")
    found = evaluate(tmp_path / "run")["parts"]["test"]["energy"]
    with h5py.File(tmp_path / "run" / "predictions.h5") as h5:
        true = h5["test/true"][:]
    assert found["deviation"] == pytest.approx(np.std(true)) and found["deviation"] > 0


def test_evaluation_refuses_other_data(toy_run, toy, tmp_path):
    train(make_spec(toy_run), tmp_path / "run", device="cpu")
    store, split = toy
    save_split(split, store, make_split(store, n_train=80, n_validation=16, seed=5))
    with pytest.raises(DataError, match="was trained with another .*split.npz than"):
        evaluate(tmp_path / "run")


def test_force_only_training_fits_the_constant(toy_run, tmp_path):
    train(make_spec(toy_run | {"rho": 0.0, "steps": 300}), tmp_path, device="cpu")
    trainer = Trainer(make_spec(toy_run | {"rho": 0.0}), tmp_path / "x", device="cpu")
    model = load_model(tmp_path / "model.pt")
    structures = trainer.training.structures
    batch, energy = structures.batch(torch.arange(len(structures))), structures.properties["energy"]
    residual = (model(batch).double() + model.offset(batch) - energy).mean()
    spread = energy.std()
    assert abs(residual) < 0.05 * spread


def test_energy_only_models_are_judged_by_forces_too(toy_run, tmp_path):
    train(make_spec(toy_run | {"forces": None}), tmp_path, device="cpu")
    assert "forces" in evaluate(tmp_path)["parts"]["test"]


def test_losses_by_hand(toy_run):
    from types import SimpleNamespace

    class Two(SimpleNamespace):
        def __len__(self):
            return 2

    batch = Two(n_atoms=torch.tensor([1, 2]), structure=torch.tensor([0, 1, 1]))
    e, t = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    f, g = torch.ones(3, 3), torch.zeros(3, 3)
    paper = make_spec(toy_run | {"rho": 0.1, "protocol": "paper"})
    assert loss_function(paper, batch, e, f, t, g).item() == pytest.approx(
        (0.1 * 5 + 3 + 6 / 2) / 2
    )
    code = make_spec(toy_run | {"rho": 0.1, "protocol": "tf_code"})
    assert loss_function(code, batch, e, f, t, g).item() == pytest.approx((0.1 * 5 + 9) / 2)
    assert loss_function(paper, batch, e, None, t, None).item() == pytest.approx(2.5)
    with pytest.raises(ConfigError, match="neither paper nor tf_code"):
        wrong = make_spec(toy_run | {"loss": "code"})
        loss_function(wrong, batch, e, f, t, g)


def test_learning_rates(toy_run):
    paper = make_spec(toy_run | {"protocol": "paper", "steps": 10**6})
    assert learning_rate(paper, 100_000) == pytest.approx(0.96e-3) and learning_rate(
        paper, 50_000
    ) == pytest.approx(1e-3 * 0.96**0.5)
    short = make_spec(toy_run | {"steps": 1000})
    assert (
        learning_rate(short, 750) == 1e-3
        and learning_rate(short, 875) == pytest.approx(1e-4)
        and learning_rate(short, 1000) == pytest.approx(1e-5)
    )
    sgdr = make_spec(toy_run | {"schedule": "sgdr", "sgdr_period": 100})
    assert learning_rate(sgdr, 0) == learning_rate(sgdr, 100) == learning_rate(sgdr, 300) == 1e-3
    assert learning_rate(sgdr, 99) < 2e-5 and learning_rate(sgdr, 200) == pytest.approx(5.05e-4)
    # cycles of 1/7, 2/7 and 4/7 of the run, lengths that are no whole numbers of steps
    cycles = make_spec(toy_run | {"schedule": "sgdr", "sgdr_cycles": 3, "steps": 700_001})
    rates = np.array([learning_rate(cycles, step) for step in range(0, 700_001, 1000)])
    assert list(np.flatnonzero(np.diff(rates) > 0)) == [100, 300]
    assert learning_rate(cycles, 700_000) == pytest.approx(1e-5)
    middle = [learning_rate(cycles, round(700_001 * k / 14)) for k in (1, 4, 10)]
    assert middle == pytest.approx([5.05e-4] * 3, rel=1e-4)
    whole = make_spec(toy_run | {"schedule": "sgdr", "sgdr_cycles": 4, "steps": 400})
    assert learning_rate(whole, 80) == 1e-3  # the third cycle begins at 80 = 3 · 400 / 15
    with pytest.raises(ConfigError, match="none of exponential"):
        learning_rate(make_spec(toy_run | {"schedule": "cosine"}), 0)


def test_patience_clipping_and_compile(toy_run, tmp_path):
    run = toy_run | {
        "patience": 20,
        "learning_rate": 1e-12,
        "learning_rate_final": 1e-12,
        "ema": 0.0,
        "gradient_clipping": 0.1,
        "steps": 5000,
    }
    train(make_spec(run), tmp_path, device="cpu")
    assert read_yaml(tmp_path / "run.yaml")["result"]["steps"] < 5000
    with pytest.raises(ConfigError, match="compile"):
        train(make_spec(toy_run | {"compile": True}), tmp_path / "c", device="cpu")


def test_mistakes_in_a_run(toy_run, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        make_spec(toy_run | {"stpes": 3})
    with pytest.raises(DataError, match="did you mean 'energy'"):
        train(make_spec(toy_run | {"target": "enrgy"}), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="less than one batch"):
        train(make_spec(toy_run | {"batch_size": 500}), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="n_features"):
        train(make_spec(toy_run | {"model": {"n_featurs": 16}}), tmp_path, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no GPU"):
            train(make_spec(toy_run), tmp_path, device="cuda")


def test_directory_that_cannot_be_written(toy_run, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    folder = (
        "/sys/run" if os.geteuid() == 0 else tmp_path / "out" / "run"
    )  # root may write everywhere else
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(toy_run))
    command = [
        sys.executable,
        "-m",
        "schnet",
        "train",
        str(tmp_path / "run.yaml"),
        "-o",
        str(folder),
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and str(folder) in done.stderr and "Traceback" not in done.stderr


def test_full_disk_is_one_clear_error(toy_run, tmp_path):
    from schnet.files import atomic

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with (
        pytest.raises(SchNetError, match="no space left"),
        atomic(tmp_path / "model.pt"),
        open("/dev/full", "w") as f,
    ):
        f.write("x" * 100_000)
        f.flush()
    # toy_run's files are there; of the model neither a part nor a temporary file
    assert not [path.name for path in tmp_path.iterdir() if "model" in path.name]


def test_atom_references_are_removed_and_added_back(tmp_path):
    """Energies dominated by references are predicted, offsets included, without losing digits."""
    store = write_molecules(tmp_path / "t.h5", 60)
    import h5py

    with h5py.File(store.path, "a") as h5:
        z, offsets = h5["atomic_numbers"][:], h5["offsets"][:]
        refs = np.zeros(100)
        refs[[1, 6, 7, 8]] = -13.6, -1030.0, -1485.0, -2042.0
        h5["properties/energy"][:] += np.array(
            [refs[z[a:b]].sum() for a, b in itertools.pairwise(offsets)]
        )
        h5["atomrefs/energy"] = refs
    save_split(tmp_path / "s.npz", store, make_split(store, n_train=40, n_validation=10, seed=0))
    run = {
        "dataset": "toy",
        "data": str(store.path),
        "split": str(tmp_path / "s.npz"),
        "target": "energy",
        "model": {"n_interactions": 1, "n_features": 16},
        "steps": 20,
        "validation_interval": 10,
        "batch_size": 8,
    }
    train(make_spec(run), tmp_path / "run", device="cpu")
    assert evaluate(tmp_path / "run")["parts"]["test"]["energy"]["mae"] < 5.0


def test_two_trainings_in_one_directory(toy_run, tmp_path):
    """The second says who is there; one that was killed is in nobody's way."""
    run = toy_run | {"steps": 100_000, "checkpoint_interval": 20}
    first = start(run, tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoint.pt", first)
    second = start(run, tmp_path / "run")
    message = second.communicate()[1]
    assert second.returncode == 2 and f"in use by process {first.pid} on " in message
    assert first.poll() is None
    first.kill()
    first.wait()
    third = start(run | {"steps": 60}, tmp_path / "run")
    message = third.communicate()[1]
    assert third.returncode == 0, message
    assert not list((tmp_path / "run").glob(".*"))


def test_a_file_system_without_locks(toy_run, tmp_path, caplog, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    fit(make_spec(toy_run), tmp_path / "run")
    assert "this file system knows no locks (No locks available)" in caplog.text
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_training_ends_with_the_workflow_that_started_it(toy_run, tmp_path):
    run = toy_run | {"steps": 100_000, "checkpoint_interval": 20}
    with subprocess.Popen(["sleep", "1000"]) as workflow:
        training = start(run, tmp_path / "run", SCHNET_ENDS_WITH=str(workflow.pid))
        wait_for(tmp_path / "run" / "checkpoint.pt", training)
        workflow.kill()
    message = training.communicate()[1]
    assert training.returncode == 128 + signal.SIGTERM
    assert "workflow that started this has ended" in message and "checkpoint written" in message
    # the number of another machine's process
    process = start(toy_run, tmp_path / "other", SCHNET_ENDS_WITH="4194303")
    assert process.wait() == 0


def test_a_finished_run_is_not_overwritten(toy_run, tmp_path):
    fit(make_spec(toy_run), tmp_path / "run")
    before = (tmp_path / "run" / "model.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"finished run with other settings \(learning_rate\)"):
        fit(make_spec(toy_run | {"learning_rate": 0.002}), tmp_path / "run")
    fit(make_spec(toy_run | {"engine": "reference"}), tmp_path / "run")
    assert (tmp_path / "run" / "model.pt").read_bytes() == before


def test_the_model_of_another_run_is_refused(toy_run, tmp_path):
    fit(make_spec(toy_run), tmp_path / "one")
    fit(make_spec(toy_run | {"seed": 5}), tmp_path / "other")
    (tmp_path / "other" / "model.pt").replace(tmp_path / "one" / "model.pt")
    with pytest.raises(ModelError, match=r"model.pt: is the model of another run \(seed differ"):
        evaluate(tmp_path / "one")
    save_model(tmp_path / "one" / "model.pt", random_model(), target="energy", unit="eV")
    with pytest.raises(ModelError, match=r"model.pt: does not tell which run made it"):
        evaluate(tmp_path / "one")


@pytest.mark.parametrize("method", ["mean", "kernel_ridge", "neural"])
def test_the_model_of_other_data_or_settings_is_refused(toy_run, tmp_path, method):
    gradient_steps = {"protocol", "model", "steps", "validation_interval", "batch_size"}
    run = toy_run | {"method": method, "forces": None}
    if method != "neural":
        run = {k: v for k, v in run.items() if k not in gradient_steps}
    store = Store(run["data"])
    other = tmp_path / "other.npz"
    save_split(other, store, make_split(store, n_train=70, n_validation=16, seed=9))
    fit(make_spec(run | {"split_seed": 9, "split": str(other)}), tmp_path / "other")
    fit(make_spec(run), tmp_path / "one")
    (tmp_path / "other" / "model.pt").replace(tmp_path / "one" / "model.pt")
    what = r"\(split_seed(, split)? differ\)"
    with pytest.raises(ModelError, match=rf"model.pt: is the model of another run {what}"):
        evaluate(tmp_path / "one")


@pytest.mark.parametrize("content", ["", "run: {}\n", "run: {a: 1}\nexecution: {}\ndata: 3\n"])
def test_a_damaged_run_file_is_one_sentence(tmp_path, content):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"run.yaml: .*; delete the directory to train"):
        evaluate(tmp_path)


def test_crystals_want_a_cutoff(toy_run, tmp_path):
    cells = (
        Structure(str(k), np.array([29]), np.zeros((1, 3)), {"energy": 1.0 * k}, np.eye(3) * 2.5)
        for k in range(20)
    )
    properties = {"energy": Property("eV", "energy")}
    write_store(tmp_path / "c.h5", cells, properties, name="crystals", cutoff=5.0)
    store = Store(tmp_path / "c.h5")
    save_split(tmp_path / "c.npz", store, make_split(store, n_train=12, n_validation=4, seed=0))
    run = toy_run | {"data": str(store.path), "split": str(tmp_path / "c.npz"), "forces": None}
    with pytest.raises(ConfigError, match="the model needs a cutoff"):
        train(make_spec(run), tmp_path / "run", device="cpu")


def test_a_cutoff_that_reaches_no_neighbour_is_refused(toy_run, tmp_path):
    run = toy_run | {"model": toy_run["model"] | {"cutoff": 0.3}}
    with pytest.raises(ConfigError, match=r"no two atoms .* closer than the cutoff of 0.3 Å"):
        train(make_spec(run), tmp_path / "run", device="cpu")


def test_a_setting_that_a_record_lacks_has_its_default(toy_run):
    """It was added later; what the protocol says of it today, the run did not know."""
    run = make_spec(toy_run | {"protocol": "short"})
    record = run.scientific()
    assert record.pop("ema") > 0
    assert make_spec(settings_of({"run": record, "result": {}})).ema == 0.0
    assert make_spec(settings_of({"run": record})).ema == run.ema  # written by hand


@pytest.mark.parametrize("beta2", [0.999, 0.9])
def test_adam_is_that_of_pytorch(beta2):
    ours, theirs = (torch.linspace(-1, 1, 7).requires_grad_() for _ in range(2))
    optimiser = Adam(ours, beta2)
    expected = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, beta2), fused=True)
    for k in range(5):
        for parameters in (ours, theirs):
            parameters.grad = torch.arange(7.0) ** k - 3
        optimiser.step(0.1)
        expected.step()
    assert torch.equal(ours, theirs)
