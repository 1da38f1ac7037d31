"""Training: resumes bit for bit, stops with reasons, does what the loss says."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import write_molecules

from schnet.data.splits import make_split, save_split
from schnet.errors import ConfigError, DataError, SchNetError, TrainingError
from schnet.evaluation import evaluate
from schnet.files import read_json, read_yaml
from schnet.models import load_model
from schnet.training.loop import Trainer, learning_rate, loss_function, train
from schnet.training.spec import make_spec


def same_file(a, b):
    return a.read_bytes() == b.read_bytes()


def start(run, out, **environment):
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(run))
    command = [sys.executable, "-m", "schnet.cli", "train", str(file), "-o", str(out), "--device", "cpu"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def kill_after_checkpoint(run, out, number):
    process = start(run, out)
    until = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait(), process.stderr.read()


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_killed_and_resumed_equals_uninterrupted(toy_run, tmp_path, engine):
    run = toy_run | {"engine": engine, "steps": 400}
    train(make_spec(run), tmp_path / "whole", device="cpu")
    code, _ = kill_after_checkpoint(run, tmp_path / "killed", signal.SIGKILL)
    assert code == -signal.SIGKILL and not (tmp_path / "killed" / "model.pt").exists()
    assert not list((tmp_path / "killed").glob("model*"))
    process = start(run, tmp_path / "killed")
    message = process.communicate()[1]
    assert process.returncode == 0 and "continuing from step" in message
    assert same_file(tmp_path / "whole" / "model.pt", tmp_path / "killed" / "model.pt")
    first, second = (pd.read_csv(tmp_path / k / "history.csv").drop(columns="seconds") for k in ("whole", "killed"))
    pd.testing.assert_frame_equal(first, second)
    # outputs that get lost before the evaluation are back without training again
    for name in ("model.pt", "history.csv", "run.yaml"):
        (tmp_path / "killed" / name).unlink()
    message = start(run, tmp_path / "killed").communicate()[1]
    assert "continuing from step 400" in message and same_file(tmp_path / "whole" / "model.pt", tmp_path / "killed" / "model.pt")
    assert (tmp_path / "killed" / "history.csv").exists() and (tmp_path / "killed" / "run.yaml").exists()
    evaluate(tmp_path / "killed")
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()


def test_sigterm_writes_a_checkpoint(toy_run, tmp_path):
    run = toy_run | {"steps": 100_000, "checkpoint_interval": 20}
    code, message = kill_after_checkpoint(run, tmp_path / "run", signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "checkpoint written at step" in message
    step = int(message.split("written at step ")[1].split(";")[0].replace(",", ""))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == step


def test_members_of_a_group_train_side_by_side(toy_run, tmp_path):
    """One process trains all; who fails says so in its own log; SIGTERM reaches everyone."""
    long = toy_run | {"steps": 100_000, "checkpoint_interval": 20}
    runs = {"first": toy_run, "broken": toy_run, "second": toy_run | {"seed": 7}}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "checkpoint.pt").write_bytes(b"damaged")

    def members(runs):
        return json.dumps({str(tmp_path / name): [run, str(tmp_path / "logs" / f"{name}.log")] for name, run in runs.items()})

    assert start(runs["first"], tmp_path / "first", SCHNET_TOGETHER=members(runs)).wait(120) == 0
    assert (tmp_path / "first" / "model.pt").exists() and (tmp_path / "second" / "model.pt").exists()
    assert "checkpoint.pt: cannot be read" in (tmp_path / "logs" / "broken.log").read_text()
    process = start(runs["broken"], tmp_path / "broken", SCHNET_TOGETHER=members(runs))
    assert process.wait(120) == 2 and "checkpoint.pt: cannot be read" in process.stderr.read()
    train(make_spec(runs["second"]), tmp_path / "alone", device="cpu")
    assert same_file(tmp_path / "alone" / "model.pt", tmp_path / "second" / "model.pt")

    process = start(long, tmp_path / "a", SCHNET_TOGETHER=members({"a": long, "b": long}))
    until = time.monotonic() + 60
    while not all((tmp_path / name / "checkpoint.pt").exists() for name in "ab") and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM and "checkpoint written" in process.stderr.read()
    assert "checkpoint written" in (tmp_path / "logs" / "b.log").read_text()


def test_checkpoint_of_another_run_is_refused(toy_run, tmp_path):
    trainer = Trainer(make_spec(toy_run), tmp_path, device="cpu")
    trainer.save_checkpoint()
    with pytest.raises(TrainingError, match="other settings"):
        train(make_spec(toy_run | {"rho": 0.5}), tmp_path, device="cpu")
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(make_spec(toy_run), tmp_path, device="cpu")


def test_not_a_number_stops_with_step_and_batch(toy_run, tmp_path):
    trainer = Trainer(make_spec(toy_run), tmp_path, device="cpu")
    trainer.train_step()
    with torch.no_grad():
        trainer.flat.tensor[:] = float("nan")
    with pytest.raises(TrainingError, match=r"is not a number at step 1, batch of m\d+"):
        trainer.train_step()


def test_divergence_stops(toy_run, tmp_path):
    with pytest.raises(TrainingError, match="diverged|not a number"):
        train(make_spec(toy_run | {"learning_rate": 1e4, "schedule": "exponential", "steps": 2000}), tmp_path, device="cpu")
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
    assert read_json(tmp_path / "metrics.json") == metrics


def test_evaluation_by_reference_and_engine_agree(toy_run, tmp_path):
    train(make_spec(toy_run), tmp_path, device="cpu")
    fast = evaluate(tmp_path)["parts"]["test"]
    slow = evaluate(tmp_path, engine="reference")["parts"]["test"]
    for q in ("energy", "forces"):
        assert fast[q]["mae"] == pytest.approx(slow[q]["mae"], rel=1e-4)


def test_evaluation_refuses_other_data(toy_run, toy, tmp_path):
    train(make_spec(toy_run), tmp_path / "run", device="cpu")
    store, split = toy
    save_split(split, store, make_split(store, n_train=80, n_validation=16, seed=5))
    with pytest.raises(DataError, match="another split"):
        evaluate(tmp_path / "run")


def test_force_only_training_fits_the_constant(toy_run, tmp_path):
    train(make_spec(toy_run | {"rho": 0.0, "steps": 300}), tmp_path, device="cpu")
    trainer = Trainer(make_spec(toy_run | {"rho": 0.0}), tmp_path / "x", device="cpu")
    model = load_model(tmp_path / "model.pt")
    batch = trainer.train.batch(torch.arange(len(trainer.train)))
    residual = (model(batch).double() + model.offset(batch) - trainer.train.properties["energy"]).mean()
    spread = trainer.train.properties["energy"].std()
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
    assert loss_function(paper, batch, e, f, t, g).item() == pytest.approx((0.1 * 5 + 3 + 6 / 2) / 2)
    code = make_spec(toy_run | {"rho": 0.1, "protocol": "tf_code"})
    assert loss_function(code, batch, e, f, t, g).item() == pytest.approx((0.1 * 5 + 9) / 2)
    assert loss_function(paper, batch, e, None, t, None).item() == pytest.approx(2.5)


def test_learning_rates(toy_run):
    paper = make_spec(toy_run | {"protocol": "paper", "steps": 10**6})
    assert learning_rate(paper, 100_000) == pytest.approx(0.96e-3) and learning_rate(paper, 50_000) == pytest.approx(1e-3 * 0.96**0.5)
    short = make_spec(toy_run | {"steps": 1000})
    assert (
        learning_rate(short, 750) == 1e-3 and learning_rate(short, 875) == pytest.approx(1e-4) and learning_rate(short, 1000) == pytest.approx(1e-5)
    )
    sgdr = make_spec(toy_run | {"schedule": "sgdr", "sgdr_period": 100})
    assert learning_rate(sgdr, 0) == learning_rate(sgdr, 100) == learning_rate(sgdr, 300) == 1e-3
    assert learning_rate(sgdr, 99) < 2e-5 and learning_rate(sgdr, 200) == pytest.approx(5.05e-4)


def test_patience_clipping_and_compile(toy_run, tmp_path):
    run = toy_run | {"patience": 20, "learning_rate": 1e-12, "learning_rate_final": 1e-12, "ema": 0.0, "gradient_clipping": 0.1, "steps": 5000}
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
    folder = "/sys/run" if os.geteuid() == 0 else tmp_path / "out" / "run"  # root may write everywhere else
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(toy_run))
    command = [sys.executable, "-m", "schnet.cli", "train", str(tmp_path / "run.yaml"), "-o", str(folder), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and str(folder) in done.stderr and "Traceback" not in done.stderr


def test_full_disk_is_one_clear_error(toy_run, tmp_path):
    from schnet.files import atomic

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises(SchNetError, match="no space left"), atomic(tmp_path / "model.pt"), open("/dev/full", "w") as f:
        f.write("x" * 100_000)
        f.flush()
    assert list(tmp_path.iterdir()) == [] or not (tmp_path / "model.pt").exists()


def test_atom_references_are_removed_and_added_back(tmp_path):
    """Energies dominated by references are predicted, offsets included, without losing digits."""
    store = write_molecules(tmp_path / "t.h5", 60)
    import h5py

    with h5py.File(store.path, "a") as h5:
        z, offsets = h5["atomic_numbers"][:], h5["offsets"][:]
        refs = np.zeros(100)
        refs[[1, 6, 7, 8]] = -13.6, -1030.0, -1485.0, -2042.0
        h5["properties/energy"][:] += np.array([refs[z[a:b]].sum() for a, b in itertools.pairwise(offsets)])
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
