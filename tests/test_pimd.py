"""Path integrals with i-PI: oscillators with known energies, restarts, explosions."""

import re
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import read, write
from conftest import random_model
from simulated import kill_after_checkpoint

from schnet.errors import ConfigError, DataError
from schnet.simulation import observables as ob
from schnet.simulation.folder import Exploded
from schnet.simulation.pimd import pimd

K = 30.0  # eV/Å^2


def oscillators(positions):
    """Independent harmonic oscillators: E = K r^2 / 2."""
    return 0.5 * K * (positions**2).sum((1, 2)), -K * positions


def bead_energy(mass, temperature, beads):
    """Potential energy of one degree of freedom at P beads, in eV; the virial one is the same."""
    kT = units.kB * temperature
    omega2 = K / mass  # in ASE's units
    hbar = units._hbar / units._e * units.second
    k = np.arange(beads)
    omega_k = 2 * beads * kT / hbar * np.sin(k * np.pi / beads)
    return 0.5 * kT * (omega2 / (omega2 + omega_k**2)).sum()


@pytest.mark.parametrize(("beads", "thermostat"), [(1, "pile_l"), (4, "pile_l"), (2, "pile_g")])
def test_harmonic_oscillator_at_p_beads(tmp_path, beads, thermostat):
    atoms = Atoms("H40", np.zeros((40, 3)))
    path = pimd(
        atoms, oscillators, tmp_path, beads=beads, steps=1500, interval=5, tau=20.0, seed=2,
        thermostat=thermostat,
    )  # fmt: skip
    log = ob.read_frames(path).equilibrated(0.2).log
    expected = 120 * bead_energy(atoms.get_masses()[0], 300.0, beads)
    for name in ("potential_eV", "kinetic_cv_eV"):
        mean, error = ob.blocking(log[name])
        assert error < 0.05 * expected
        # with one bead the virial kinetic energy is kT / 2 for every degree of freedom
        assert mean == pytest.approx(expected, abs=max(5 * error, 1e-5 * expected))


def test_path_integrals_of_a_crystal_with_any_cell(tmp_path):
    model = random_model(cutoff=4.0, r_max=4.0)
    model.unit, model.kind = "eV", "energy"
    atoms = bulk("C", "diamond", a=3.6)  # its cell is not triangular
    pimd(atoms, model, tmp_path, steps=4, beads=2, interval=2)
    assert (tmp_path / "trajectory.h5").exists()


def test_killed_pimd_continues_with_the_same_trajectory(model_file, ethanol, tmp_path):
    write(tmp_path / "in.traj", ethanol)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = ["pimd", tmp_path / "in.traj", model_file, "-o", killed, "--steps", 10**7]
    command += ["--beads", 2, "--interval", 5, "--checkpoint", 20, "--seed", 5, "--device", "cpu"]
    kill_after_checkpoint(command, killed / "restart.xml")
    done = int(re.search(r"<step>\s*(\d+)", (killed / "restart.xml").read_text())[1])
    settings = dict(beads=2, interval=5, checkpoint=20, seed=5)
    atoms = read(tmp_path / "in.traj")
    paths = [
        pimd(atoms, model_file, folder, steps=done + 40, **settings) for folder in (killed, whole)
    ]
    a, b = map(ob.read_frames, paths)
    assert a.positions.shape == (done // 5 + 9, 2, 9, 3)
    assert (a.positions == b.positions).all()
    assert np.allclose(a.log, b.log, rtol=1e-9, atol=1e-9)
    # longer than it was: nothing is done again, and what is there stays
    pimd(atoms, model_file, killed, steps=done + 40, **settings)
    longer = ob.read_frames(pimd(atoms, model_file, killed, steps=done + 60, **settings))
    assert (longer.positions[: len(a.positions)] == a.positions).all()
    assert len(longer.positions) == len(a.positions) + 4
    with pytest.raises(ConfigError, match="holds a simulation with beads"):
        pimd(atoms, model_file, killed, steps=10, **settings | {"beads": 4})


def test_a_finished_run_that_was_to_go_on_is_not_lost(model_file, ethanol, tmp_path):
    """Cut off while its positions were unpacked again: trajectory.h5 has them still."""
    settings = dict(beads=2, interval=2, checkpoint=4)
    pimd(ethanol, model_file, tmp_path, steps=8, **settings)
    before = ob.read_frames(tmp_path).positions
    (tmp_path / "positions.f4").write_bytes(b"12345678")
    pimd(ethanol, model_file, tmp_path, steps=12, **settings)
    after = ob.read_frames(tmp_path).positions
    assert len(after) == 7 and np.array_equal(after[:5], before)


def test_a_run_whose_trajectory_was_removed_starts_anew(model_file, ethanol, tmp_path, caplog):
    settings = dict(beads=2, interval=2, checkpoint=4)
    before = ob.read_frames(pimd(ethanol, model_file, tmp_path, steps=8, **settings)).positions
    (tmp_path / "trajectory.h5").unlink()
    after = ob.read_frames(pimd(ethanol, model_file, tmp_path, steps=8, **settings)).positions
    assert "its trajectory is gone; starting anew" in caplog.text
    assert np.array_equal(before, after)


def test_exploding_path_integral(ethanol, tmp_path):
    def repulsive(positions):
        return np.zeros(len(positions)), 50.0 * positions

    with pytest.raises(Exploded, match=r"exploded at step \d+: atom \d is too fast"):
        pimd(ethanol, repulsive, tmp_path, beads=2, steps=500, interval=1)
    with pytest.raises(DataError, match="exploded"):
        ob.read_frames(tmp_path)
    frames = ob.read_frames(tmp_path / "exploded.h5")  # what was written is kept
    assert len(frames.positions) == len(frames.log) > 1


def test_exploded_path_integrals_are_no_finished_ones(model_file, ethanol, tmp_path):
    settings = dict(beads=2, timestep=20.0, temperature=3000, interval=1, checkpoint=2)
    for _ in range(2):  # the second goes on from the checkpoint, to the same end
        with pytest.raises(Exploded, match="exploded at step"):
            pimd(ethanol, model_file, tmp_path, steps=500, **settings)
        assert not (tmp_path / "trajectory.h5").exists()
        frames = ob.read_frames(tmp_path / "exploded.h5")
        assert len(frames.positions) == len(frames.log) > 1


def test_unfitting_ipi_is_named(monkeypatch, ethanol, model_file, tmp_path):
    monkeypatch.setattr("ipi._version.__version__", "2.6.3")
    with pytest.raises(ConfigError, match=r"i-PI 2.6.3 is installed, 3.3.1 is needed; pip install"):
        pimd(ethanol, model_file, tmp_path, steps=1)
    monkeypatch.setitem(sys.modules, "ipi._version", None)
    with pytest.raises(ConfigError, match="i-PI is not installed"):
        pimd(ethanol, model_file, tmp_path, steps=1)
