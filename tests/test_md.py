"""Molecular dynamics: conservation, temperature, restarts, explosions."""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read, write
from conftest import ROOT, committed, random_model
from simulated import kill_after_checkpoint

from schnet.errors import ConfigError, SchNetError
from schnet.simulation.folder import Exploded
from schnet.simulation.md import md
from schnet.simulation.pimd import pimd
from schnet.simulation.relax import relax


def test_energy_is_conserved_without_a_thermostat(model_file, ethanol, tmp_path):
    settings = dict(thermostat="none", temperature=300, interval=10, seed=3)
    md(ethanol, model_file, tmp_path, steps=300, **settings)
    log = pd.read_csv(tmp_path / "log.csv")
    images = read(tmp_path / "trajectory.extxyz", ":")
    assert len(log) == len(images) == 31
    assert np.ptp(log["total_eV"]) < 0.1 * log["kinetic_eV"].mean()
    assert log["potential_eV"].iloc[-1] == pytest.approx(images[-1].get_potential_energy())


def test_temperature_counts_what_can_move(model_file, ethanol, tmp_path):
    """Verlet from rest as a whole: 3 n - 6 momenta are free, and the first row has their share."""
    found = []
    for seed in range(40):
        md(ethanol, model_file, tmp_path / str(seed), steps=1, thermostat="none", seed=seed)
        found.append(pd.read_csv(tmp_path / str(seed) / "log.csv")["temperature_K"][0])
    error = 300 * np.sqrt(2 / (3 * len(ethanol) - 6) / len(found))
    assert np.mean(found) == pytest.approx(300, abs=4 * error)


def test_frames_carry_energy_forces_and_momenta(model_file, ethanol, tmp_path):
    last = md(ethanol, model_file, tmp_path, steps=20, interval=20)
    frame = read(tmp_path / "trajectory.extxyz")
    assert frame.get_potential_energy() == pytest.approx(last.get_potential_energy(), rel=1e-9)
    forces = last.get_forces(apply_constraint=False)
    assert frame.get_forces() == pytest.approx(forces, abs=1e-6)
    assert frame.get_momenta() == pytest.approx(last.get_momenta(), abs=1e-6)


def test_committee_logs_its_spread(model_file, ethanol, tmp_path):
    md(ethanol, [model_file, committed("md17_malonaldehyde")], tmp_path, steps=20, interval=10)
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log["energy_std_eV"] > 0).all() and (log["max_forces_std_eV_A"] > 0).all()


def test_constraints_hold_or_are_refused(model_file, ethanol, tmp_path):
    fixed = ethanol.copy()
    fixed.set_constraint(FixAtoms([0, 1]))
    last = md(fixed, model_file, tmp_path / "md", steps=20)
    assert last.positions[:2] == pytest.approx(ethanol.positions[:2], abs=0)
    assert np.abs(last.positions[2:] - ethanol.positions[2:]).max() > 0
    with pytest.raises(ConfigError, match="has constraints"):
        pimd(fixed, model_file, tmp_path / "pimd", steps=2, beads=2)
    relax(ethanol, model_file, tmp_path / "relax", fmax=0.5)
    with pytest.raises(ConfigError, match="structure"):
        relax(fixed, model_file, tmp_path / "relax", fmax=0.5)


def test_killed_md_continues_with_the_same_trajectory(model_file, ethanol, tmp_path):
    write(tmp_path / "in.traj", ethanol)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = ["md", tmp_path / "in.traj", model_file, "-o", killed, "--steps", 10**7]
    command += ["--interval", 7, "--checkpoint", 28, "--seed", 5, "--device", "cpu"]
    kill_after_checkpoint(command, killed / "checkpoint.npz")
    with np.load(killed / "checkpoint.npz") as kept:
        steps = int(kept["step"]) + 50
    settings = dict(interval=7, checkpoint=28, seed=5, steps=steps)
    atoms = read(tmp_path / "in.traj")
    last = md(atoms, model_file, killed, **settings)
    same = md(atoms, model_file, whole, **settings)
    assert (last.positions == same.positions).all() and (
        last.get_momenta() == same.get_momenta()
    ).all()
    for name in ("trajectory.extxyz", "log.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(ConfigError, match="holds a simulation with temperature: 300.0, asked for"):
        md(atoms, model_file, killed, temperature=310, **settings)


def test_two_processes_do_not_share_a_folder(model_file, ethanol, tmp_path):
    write(tmp_path / "e.xyz", ethanol)
    command = ["md", tmp_path / "e.xyz", model_file, "-o", tmp_path / "md", "--device", "cpu"]
    command = [sys.executable, "-m", "schnet", *command, "--steps", 10**7, "--checkpoint", 20]
    first = subprocess.Popen(
        [str(part) for part in command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # ignored in what a shell runs in the background, and inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (tmp_path / "md" / "checkpoint.npz").exists():
            assert first.poll() is None
            time.sleep(0.1)
        atoms = read(tmp_path / "e.xyz")
        with pytest.raises(SchNetError, match=f"in use by process {first.pid}"):
            md(atoms, model_file, tmp_path / "md", steps=10**7, checkpoint=20)
        first.send_signal(signal.SIGINT)
        _, message = first.communicate(timeout=120)
        assert first.returncode == 130
        assert "stopped; what was written is kept" in message and "Traceback" not in message
    finally:
        first.kill()


def test_exploding_trajectory_stops_and_names_step_and_atom(model_file, ethanol, tmp_path):
    fast = ethanol.copy()
    momenta = np.zeros((9, 3))
    momenta[4] = 40.0
    fast.set_momenta(momenta)
    with pytest.raises(Exploded, match=r"exploded at step 1: atom 4 has .*kept"):
        md(fast, model_file, tmp_path / "a", steps=9, temperature=None, thermostat="none")
    assert len(read(tmp_path / "a" / "trajectory.extxyz", ":")) == 1
    model = random_model(scale=20.0).eval()  # forces beyond all measure
    with pytest.raises(Exploded, match=r"exploded at step \d+: (atom|two atoms)"):
        md(molecule("CH3CH2OH"), model, tmp_path / "b", steps=2000, timestep=2.0)
