"""Relaxation, normal modes, dynamics and path integrals: analytic cases, restarts, refusals."""

import copy
import json
import logging
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.socketio import SocketIOCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from conftest import ROOT, random_model, schnet
from scipy.stats import norm

from schnet.cli import main
from schnet.data.neighbours import neighbour_pairs
from schnet.errors import ConfigError, DataError, ModelError, SchNetError
from schnet.models import build, load_model, save_model
from schnet.run import make_spec
from schnet.simulation import observables as ob
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.copies import NeighbourList
from schnet.simulation.folder import Exploded
from schnet.simulation.ipi_driver import ipi_driver
from schnet.simulation.md import md
from schnet.simulation.modes import (
    compare,
    degenerate,
    finite_difference_hessian,
    frequencies,
    hessian,
    modes,
    normal_modes,
    rigid_motions,
)
from schnet.simulation.pimd import pimd
from schnet.simulation.potential import Potential
from schnet.simulation.relax import in_double, largest_force, relax
from schnet.training.loop import train
from schnet.training_range import CLOSE

RUNS = ROOT / "results" / "replication" / "small" / "runs"


def committed(dataset):
    """The committed model of a molecule."""
    return next((RUNS / dataset / "energy+forces").glob("*/n1000/rep0/model.pt"))


@pytest.fixture(scope="module")
def model_file():
    return committed("md17_ethanol")


@pytest.fixture(scope="module")
def ethanol(model_file):
    atoms = relax(molecule("CH3CH2OH"), model_file, fmax=1e-4)
    atoms.calc = None
    return atoms


def crystal(seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def crystal_model(seed=0):
    return random_model(seed, cutoff=4.0, r_max=4.0).double().eval()


class Spring(Calculator):
    """Two atoms and a spring: E = k (d - d0)^2 / 2."""

    implemented_properties = ["energy", "forces"]
    K, D0 = 30.0, 1.1

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        r = self.atoms.positions[1] - self.atoms.positions[0]
        d = np.linalg.norm(r)
        f = self.K * (d - self.D0) * r / d
        energy = 0.5 * self.K * (d - self.D0) ** 2
        self.results = {"energy": energy, "forces": np.array([f, -f])}


# ---- the calculator ------------------------------------------------------------------------------
def test_committee_gives_mean_and_spread():
    members = [random_model(seed).double().eval() for seed in range(3)]
    atoms = molecule("CH3OH")
    each = []
    for m in members:
        atoms.calc = SchNetCalculator(m)
        each.append((atoms.get_potential_energy(), atoms.get_forces()))
        with pytest.raises(Exception, match="energy_std"):
            atoms.calc.get_property("energy_std", atoms)
    atoms.calc = SchNetCalculator(members)
    energies, forces = np.array([e for e, _ in each]), np.array([f for _, f in each])
    assert atoms.get_potential_energy() == pytest.approx(energies.mean(), abs=1e-10)
    assert atoms.get_forces() == pytest.approx(forces.mean(0), abs=1e-10)
    calc = atoms.calc
    assert calc.get_property("energy_std", atoms) == pytest.approx(energies.std(ddof=1))
    assert calc.get_property("forces_std", atoms) == pytest.approx(forces.std(0, ddof=1))


def test_stress_is_the_derivative_by_strain():
    atoms = crystal()
    atoms.calc = SchNetCalculator(crystal_model())
    stress = atoms.get_stress(voigt=False)
    assert np.abs(stress).max() > 1e-4
    h = 1e-5
    for a, b in ((0, 0), (1, 2), (2, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * h
            strain[b, a] += 0.5 * sign * h
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            moved.calc = SchNetCalculator(crystal_model())
            energies.append(moved.get_potential_energy())
        expected = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(expected, rel=1e-5, abs=1e-8)
    with pytest.raises(Exception, match="not periodic"):
        SchNetCalculator(random_model()).get_property("stress", molecule("H2O"))


def test_neighbour_lists_are_reused_and_give_the_same():
    atoms = crystal()
    kept, model = SchNetCalculator(crystal_model()), crystal_model()
    rng = np.random.default_rng(0)
    for k in range(30):
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        if k % 10 == 5:
            atoms.set_cell(atoms.cell.array * [1.01, 1.0, 0.995], scale_atoms=True)
        atoms.calc = SchNetCalculator(model)
        fresh = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = kept
        assert atoms.get_potential_energy() == pytest.approx(fresh[0], abs=1e-10)
        assert atoms.get_forces() == pytest.approx(fresh[1], abs=1e-10)
    (copies,) = kept.potential.copies
    assert 1 <= copies.lists[0].searches < 15


def test_pairs_are_those_within_the_cutoff_in_one_order():
    rng = np.random.default_rng(1)
    atoms = crystal()
    cell = atoms.cell.array
    old, r = NeighbourList(4.0, 1.0), atoms.positions.copy()
    old.pairs(r, cell)
    r += rng.normal(0, 0.1, r.shape)
    pairs = old.pairs(r, cell)
    assert old.searches == 1
    new = NeighbourList(4.0, 1.0).pairs(r, cell)
    assert all(np.array_equal(a, b) for a, b in zip(pairs, new, strict=True))
    i, j, shift = neighbour_pairs(r, cell, 4.0)
    d = np.sort(np.linalg.norm(r[j] - r[i] + shift @ cell, axis=1))
    found = np.sort(np.linalg.norm(r[pairs[1]] - r[pairs[0]] + pairs[2], axis=1))
    assert found == pytest.approx(d, abs=1e-10)


def test_slowly_growing_distances_ask_for_few_tables(model_file, ethanol):
    potential = Potential(model_file, ethanol)
    predictor, made, r = potential.predictors[0], [], ethanol.positions.copy()
    r[-1] = r[:, 0].max() + 1.0, *r[:-1, 1:].mean(0)
    for _ in range(400):
        r[-1, 0] += 0.05
        potential(r[None])
        if predictor.engine not in made:
            made.append(predictor.engine)
    assert len(made) < 10
    # what was evaluated before does not show
    assert potential(r[None])[0] == Potential(model_file, ethanol)(r[None])[0]


# ---- relaxation and modes ------------------------------------------------------------------------
def test_relaxation_goes_below_the_rounding_of_float32(model_file, ethanol, tmp_path):
    atoms = molecule("CH3CH2OH")
    with pytest.raises(SchNetError, match="not relaxed after 3 steps"):
        relax(atoms, model_file, tmp_path, fmax=1e-6, steps=3)
    before = len(read(tmp_path / "relaxation.traj", ":"))
    relaxed = relax(atoms, model_file, tmp_path, fmax=1e-6)
    assert largest_force(relaxed) < 1e-6 and before >= 3
    assert relaxed.get_potential_energy() < ethanol_energy(model_file, ethanol) + 1e-6
    kept = read(tmp_path / "relaxed.extxyz")
    assert kept.positions == pytest.approx(relaxed.positions, abs=1e-7)
    with pytest.raises(ConfigError, match="holds a simulation with fmax"):
        relax(atoms, model_file, tmp_path, fmax=1e-3)


def ethanol_energy(model_file, atoms):
    atoms = atoms.copy()
    atoms.calc = SchNetCalculator(in_double(model_file))
    return atoms.get_potential_energy()


def test_cell_is_relaxed_by_the_stress():
    atoms = crystal()
    model = crystal_model()
    model.scale.fill_(0.05)
    try:
        relaxed = relax(atoms, model, fmax=0.02, cell=True, steps=40)
    except SchNetError:  # random models need not have a minimum, but it must go downhill
        return
    assert np.abs(relaxed.get_stress()).max() < 0.02


def test_frequency_of_a_diatomic():
    atoms = Atoms("CO", [[0, 0, 0], [0.3, 0.4, Spring.D0 * np.sqrt(1 - 0.25 / Spring.D0**2)]])
    found = normal_modes(atoms, Spring())
    m1, m2 = atoms.get_masses() * units._amu
    k = Spring.K * units._e * 1e20  # J/m^2
    omega = np.sqrt(k * (m1 + m2) / (m1 * m2))
    assert found.frequencies == pytest.approx([omega / (2 * np.pi * units._c * 100)], rel=1e-4)
    assert found.n_imaginary == 0 and found.max_force < 1e-8


def test_rigid_motions():
    counts = {"H2O": 6, "CO2": 5, "H": 3}
    for name, count in counts.items():
        atoms = molecule(name) if name != "H" else Atoms("H")
        atoms.rotate(40, (1, 2, 3))
        assert rigid_motions(atoms).shape[1] == count
    assert rigid_motions(crystal()).shape[1] == 3


def test_hessian_of_autodiff_and_of_finite_differences():
    members = [random_model(seed).double().eval() for seed in range(2)]
    atoms = molecule("CH3OH")
    h = hessian(atoms, members)
    evaluate = Potential(members, atoms, 6)
    assert finite_difference_hessian(evaluate, atoms.positions, 1e-3) == pytest.approx(h, abs=1e-4)
    found, vectors = frequencies(atoms, h)
    assert len(found) == 12 and (found < 0).any()  # no minimum: imaginary ones are shown
    flat = vectors.reshape(12, -1)
    assert flat @ flat.T == pytest.approx(np.eye(12), abs=1e-10)
    assert flat @ rigid_motions(atoms) == pytest.approx(0, abs=1e-10)


def test_engine_has_the_modes_of_the_reference(model_file, ethanol):
    exact = normal_modes(ethanol, model_file)
    finite = normal_modes(ethanol, model_file, method="finite")
    assert len(exact.frequencies) == 21 and exact.n_imaginary == 0
    assert 2500 < exact.frequencies[-1] < 4500
    assert finite.frequencies == pytest.approx(exact.frequencies, abs=2)
    turned = ethanol.copy()
    turned.rotate(70, (1, 0, 2))
    same = compare(exact, normal_modes(turned, model_file))
    assert (same["other_mode"] == same["mode"]).all()
    assert same["overlap"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert same["difference_percent"].to_numpy() == pytest.approx(0, abs=0.01)


def test_degeneracies_by_a_tolerance():
    assert degenerate(np.array([1.0, 1.3, 1.6, 5.0, 5.1]), 0.35).tolist() == [0, 0, 0, 1, 1]


def test_modes_of_two_models_on_the_command_line(model_file, tmp_path, capsys):
    write(tmp_path / "in.xyz", molecule("CH3CH2OH"))
    command = ["modes", tmp_path / "in.xyz", model_file, "-o", tmp_path / "out", "--device", "cpu"]
    command += ["--compare", "gfn2-xtb", "--fmax", 1e-3]
    assert main([str(c) for c in command]) == 0
    assert "21 modes, 0 imaginary" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "comparison_1.csv")
    assert len(table) == 21 and table["overlap"].mean() > 0.8
    assert np.abs(table["difference_percent"].iloc[5:]).max() < 25
    before = (tmp_path / "out" / "modes.npz").stat().st_mtime_ns
    assert main([str(c) for c in command]) == 0  # nothing is computed again
    assert (tmp_path / "out" / "modes.npz").stat().st_mtime_ns == before


def test_modes_of_the_released_c20_model(mirror, tmp_path):
    folder = mirror / "c20" / "models" / "c20"
    assert schnet("import-tf", folder / "force_model", tmp_path / "m.pt").returncode == 0
    found = modes(read(folder / "C20.xyz"), tmp_path / "m.pt", tmp_path / "modes")
    assert found.max_force < 1e-5 and found.n_imaginary == 0
    f = found.frequencies
    assert len(f) == 54
    assert f[[0, 1, -2, -1]] == pytest.approx([108.4, 108.4, 1393.5, 1393.5], abs=0.1)
    groups, sizes = np.unique(found.groups, return_counts=True)
    assert len(groups) == 36 and set(sizes) == {1, 2}  # D3d: nothing is more than twofold


# ---- molecular dynamics --------------------------------------------------------------------------
def test_energy_is_conserved_without_a_thermostat(model_file, ethanol, tmp_path):
    settings = dict(thermostat="none", temperature=300, interval=10, seed=3)
    md(ethanol, model_file, tmp_path, steps=300, **settings)
    log = pd.read_csv(tmp_path / "log.csv")
    images = read(tmp_path / "trajectory.extxyz", ":")
    assert len(log) == len(images) == 31
    assert np.ptp(log["total_eV"]) < 0.1 * log["kinetic_eV"].mean()
    assert log["potential_eV"].iloc[-1] == pytest.approx(images[-1].get_potential_energy())


def kill_after_checkpoint(command, checkpoint):
    """Start a command, kill -9 it a moment after its first checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "schnet.cli", *map(str, command)], cwd=ROOT)
    try:
        for _ in range(1200):
            if checkpoint.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


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


def test_committee_logs_its_spread(model_file, ethanol, tmp_path):
    md(ethanol, [model_file, committed("md17_malonaldehyde")], tmp_path, steps=20, interval=10)
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log["energy_std_eV"] > 0).all() and (log["max_forces_std_eV_A"] > 0).all()


# ---- path integrals ------------------------------------------------------------------------------
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


def test_exploding_path_integral(ethanol, tmp_path):
    def repulsive(positions):
        return np.zeros(len(positions)), 50.0 * positions

    with pytest.raises(Exploded, match=r"exploded at step \d+: atom \d is too fast"):
        pimd(ethanol, repulsive, tmp_path, beads=2, steps=500, interval=1)
    with pytest.raises(DataError, match="exploded"):
        ob.read_frames(tmp_path)
    frames = ob.read_frames(tmp_path / "exploded.h5")  # what was written is kept
    assert len(frames.positions) == len(frames.log) > 1


def test_unfitting_ipi_is_named(monkeypatch, ethanol, model_file, tmp_path):
    monkeypatch.setattr("ipi._version.__version__", "2.6.3")
    with pytest.raises(ConfigError, match=r"i-PI 2.6.3 is installed, 3.3.1 is needed; pip install"):
        pimd(ethanol, model_file, tmp_path, steps=1)
    monkeypatch.setitem(sys.modules, "ipi._version", None)
    with pytest.raises(ConfigError, match="i-PI is not installed"):
        pimd(ethanol, model_file, tmp_path, steps=1)


# ---- the socket driver ---------------------------------------------------------------------------
def test_driver_answers_over_a_unix_socket(model_file, ethanol):
    name = f"schnet_test_{time.time_ns()}"
    with SocketIOCalculator(unixsocket=name, timeout=30) as server:
        client = threading.Thread(
            target=ipi_driver, args=(ethanol, model_file), kwargs={"unix": name}, daemon=True
        )
        client.start()
        atoms = ethanol.copy()
        atoms.calc = server
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    client.join(timeout=10)
    assert not client.is_alive()
    atoms.calc = SchNetCalculator(model_file)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert forces == pytest.approx(atoms.get_forces(), abs=1e-6)


def test_driver_says_that_nobody_listens(model_file, ethanol):
    with pytest.raises(SchNetError, match="no such socket; start i-PI first"):
        ipi_driver(ethanol, model_file, unix="nobody_is_here")
    name = f"schnet_left_{time.time_ns()}"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"/tmp/ipi_{name}")
    try:
        with pytest.raises(SchNetError, match="left from a run that has ended: delete it"):
            ipi_driver(ethanol, model_file, unix=name)
    finally:
        (ROOT / f"/tmp/ipi_{name}").unlink()
    with pytest.raises(SchNetError, match="nobody listens"):
        ipi_driver(ethanol, model_file, port=1)


# ---- what is refused -----------------------------------------------------------------------------
def test_a_model_that_heeds_where_a_structure_lies_is_no_potential(tmp_path, ethanol):
    model = build("fully_connected", {})
    save_model(tmp_path / "model.pt", model, target="energy", unit="eV")
    with pytest.raises(ModelError, match="fully_connected: moving or turning .* is no potential"):
        SchNetCalculator(tmp_path / "model.pt")


def test_refusals(model_file, ethanol, tmp_path, caplog):
    with pytest.raises(DataError, match="element S: the model has never seen it"):
        relax(molecule("CH3SH"), load_model_that_knows("CHO"))
    close = ethanol.copy()
    close.positions[3] = close.positions[2] + [0.1, 0, 0.1]
    for run in (relax, SchNetCalculator):
        with pytest.raises(DataError, match=r"atoms 2 and 3 are 0.14 Å apart, closer than 0.3 Å"):
            run(close, model_file) if run is relax else run(model_file).get_forces(close)
    lost = ethanol.copy()
    lost.positions[5, 1] = np.nan
    with pytest.raises(DataError, match="position of atom 5 is not a finite number"):
        SchNetCalculator(model_file).get_forces(lost)
    lost = crystal()
    calculator = SchNetCalculator(crystal_model())
    calculator.get_forces(lost)
    lost.positions[5, 1] = np.nan
    with pytest.raises(DataError, match="position of atom 5 is not a finite number"):
        calculator.get_forces(lost)
    double = SchNetCalculator(in_double(model_file))
    with pytest.raises(DataError, match="atoms 2 and 3"):
        double.get_forces(close)
    with pytest.raises(DataError, match="periodic, but the model has no cutoff"):
        md(bulk("C"), model_file, tmp_path / "md", steps=1)
    assert not (tmp_path / "md").exists()
    with pytest.raises(ConfigError, match="did you mean 'langevin'"):
        md(ethanol, model_file, tmp_path / "md", steps=1, thermostat="langevn")
    with pytest.raises(ConfigError, match="did you mean 'FIRE'"):
        relax(ethanol, model_file, optimizer="FIR")
    calculator = SchNetCalculator(crystal_model())
    with caplog.at_level(logging.WARNING, "schnet"):
        for _ in range(2):
            calculator.get_potential_energy(molecule("CH4"))
    assert [r.message for r in caplog.records if "not periodic" in r.message] == [
        "caution, CH4: not periodic, and the model has a cutoff of 4.0 Å: if it was trained on "
        "crystals, it knows nothing of molecules"
    ]


def test_training_tells_what_the_model_has_seen(toy_run, tmp_path, caplog):
    folder = tmp_path / "run"
    command = ["train", json.dumps(toy_run), "--output", str(folder), "--device", "cpu"]
    assert main(command) == 0
    seen = load_model(folder / "model.pt").provenance
    assert seen["periodic"] is False
    lo, hi = seen["distances"]
    assert 0.5 < lo < 1.3 < 2 < hi < 10
    h2 = Atoms("H2", [[0, 0, 0], [0, 0, lo - 0.1]])
    with caplog.at_level(logging.WARNING, "schnet"):
        for _ in range(2):
            SchNetCalculator(folder / "model.pt").get_potential_energy(h2)
    expected = f"caution, H2: atoms come as close as {lo - 0.1:.2f} Å; the model was trained on"
    assert sum(r.message.startswith(expected) for r in caplog.records) == 1


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_atoms_that_come_closer_than_in_training_are_told_of_once(engine, tmp_path, caplog):
    """Not at the start alone: two atoms that fly towards each other."""
    model = random_model(seed=7).eval()
    model.provenance = {"distances": [1.1 if engine == "auto" else 1.2, 5.0]}
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.5]])
    atoms.set_momenta([[0, 0, 2.0], [0, 0, -2.0]])
    with caplog.at_level(logging.WARNING, "schnet"):
        SchNetCalculator(model, engine=engine).get_forces(atoms)
        assert "close" not in caplog.text
        out = tmp_path / "md"
        settings = dict(timestep=0.5, temperature=None, thermostat="none", engine=engine)
        md(atoms, model, out, steps=60, interval=1, **settings)
    d = [f.get_distance(0, 1) for f in read(out / "trajectory.extxyz", ":")]
    limit = model.provenance["distances"][0]
    first = next(x for x in d if x < limit - CLOSE)
    assert sum(x < limit - CLOSE for x in d) > 1
    assert [r.message for r in caplog.records if "close" in r.message] == [
        f"caution, N2: atoms come as close as {first:.2f} Å; the model was trained on "
        f"{limit:.2f} Å and more"
    ]


def test_atoms_far_apart_and_an_explosion(model_file):
    """Beyond the Gaussians filters are constant: no long table, and none at every step."""
    h2 = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    potential, predictors = Potential(model_file, h2), []
    exact = Potential(in_double(model_file), h2, engine="reference")
    made = set()
    for d in np.geomspace(0.8, 9000.0, 60):
        r = np.array([[[0, 0, 0], [0, 0, d]]])
        (e, f), (e2, f2) = potential(r), exact(r)
        assert e == pytest.approx(e2, abs=2e-5) and f == pytest.approx(f2, abs=2e-4)
        made.add(potential.predictors[0].engine)
        predictors.append(potential.predictors[0].engine)
    assert len(made) < 15 and predictors[-1].grid.n_knots < 1000
    fresh = Potential(model_file, Atoms("H2", [[0, 0, 0], [0, 0, 9000.0]]))
    assert fresh(r)[0] == potential(r)[0]
    assert fresh.predictors[0].engine.grid.n_knots < 1000
    with pytest.raises(DataError, match="two atoms are 20,000 Å apart"):
        potential(np.array([[[0, 0, 0], [0, 0, 2e4]]]))


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_impossible_numbers_of_threads(model_file, ethanol, toy_run, tmp_path, threads):
    with pytest.raises(ConfigError, match=f"threads: {threads} is not within 1–"):
        SchNetCalculator(model_file, threads=threads).get_forces(ethanol)
    with pytest.raises(ConfigError, match=f"threads: {threads} is not within 1–"):
        train(make_spec(toy_run), tmp_path, threads=threads)


def test_a_calculator_can_be_copied_and_pickled(model_file, ethanol):
    calculator = SchNetCalculator([model_file, model_file])
    forces = calculator.get_forces(ethanol)
    copies = [copy.copy(calculator), copy.deepcopy(calculator)]
    copies += [pickle.loads(pickle.dumps(calculator))]
    water = molecule("H2O")
    for other in copies:  # and they share nothing: each is given another molecule in between
        other.get_forces(water)
        assert np.array_equal(calculator.get_forces(ethanol), forces)
        moved = ethanol.copy()
        moved.positions[0, 0] += 0.01
        expected = SchNetCalculator([model_file, model_file]).get_forces(moved)
        assert np.array_equal(calculator.get_forces(moved), expected)
        assert np.array_equal(other.get_forces(ethanol), forces)


def test_models_of_molecules_are_no_models_of_crystals(caplog):
    for periodic, atoms, message in (
        (False, crystal(), "caution, Cl4Na4: periodic; the model was trained on molecules"),
        (True, molecule("C2H2"), "caution, C2H2: not periodic; the model was trained on crystals"),
        (False, molecule("C2H4"), None),
    ):
        model = crystal_model()
        model.provenance = {"periodic": periodic}
        caplog.clear()
        with caplog.at_level(logging.WARNING, "schnet"):
            SchNetCalculator(model).get_potential_energy(atoms)
        said = [r.message for r in caplog.records if "periodic" in r.message]
        assert said == ([message] if message else [])


def load_model_that_knows(symbols):
    model = random_model().eval()
    model.set_elements(Atoms(symbols).numbers)
    return model


def test_commands_refuse_what_is_no_input(model_file, tmp_path, capsys):
    (tmp_path / "bad.xyz").write_text("no structure\n")
    for name, message in (("none.xyz", "no such file"), ("bad.xyz", "cannot be read by ASE")):
        command = ["md", tmp_path / name, model_file, "-o", tmp_path / "o", "--steps", 1]
        assert main([*map(str, command), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err


# ---- observables ---------------------------------------------------------------------------------
def test_blocking_finds_the_error_of_correlated_numbers():
    rng = np.random.default_rng(0)
    a, n = 0.9, 20000
    exact = np.sqrt((1 + a) / (1 - a) / n)  # of the mean of this process, of variance 1
    errors = []
    for _ in range(5):
        x, noise = np.zeros(n), rng.normal(0, np.sqrt(1 - a * a), n)
        for k in range(1, n):
            x[k] = a * x[k - 1] + noise[k]
        mean, error = ob.blocking(x)
        errors.append(error)
        assert abs(mean) < 5 * error
    assert np.mean(errors) == pytest.approx(exact, rel=0.2)
    white = rng.normal(size=n)
    assert ob.blocking(white)[1] == pytest.approx(1 / np.sqrt(n), rel=0.1)
    assert ob.blocking(np.ones(100)) == (1.0, 0.0)


def test_distances_of_a_known_geometry(tmp_path):
    atoms = Atoms("H3", [[0, 0, 0], [1, 0, 0], [3, 0, 0]])
    positions = np.repeat(atoms.positions[None, None], 8, 0)
    assert ob.nearest_neighbours(positions)[0, 0].tolist() == [[1], [1], [2]]
    assert ob.nearest_neighbours(positions, 2)[0, 0].tolist() == [[1, 3], [1, 2], [2, 3]]
    assert ob.diameters(positions) == pytest.approx(3)
    log = pd.DataFrame({"time_ps": np.arange(8), "total_eV": 2.0 + 0.5 * np.arange(8)})
    log["temperature_K"] = log["potential_eV"] = 1.0
    frames = ob.Frames(positions, atoms.numbers, log)
    h = ob.pair_distribution(frames, np.arange(0, 5, 0.5))
    assert (h["density"] * 0.5).sum() == pytest.approx(1)
    assert h["density"][h["r"] == 1.25].item() == pytest.approx(2 / 3)
    table = ob.observables(frames).set_index("observable")
    assert table.loc["nearest neighbour", "mean"] == pytest.approx(4 / 3)
    assert table.loc["drift of the conserved quantity", "mean"] == pytest.approx(0.5)
    assert ob.observables(frames).attrs["frames"] == 7
    with pytest.raises(DataError, match="has the run finished"):
        ob.read_frames(tmp_path)


def test_differences_and_skewness_of_known_distributions():
    rng = np.random.default_rng(0)
    edges = np.linspace(-6, 6, 61)
    one, same, shifted = (rng.normal(m, 1, (50, 400)) for m in (0, 0, 0.5))
    tables = [ob.distribution(x, edges) for x in (one, same, shifted)]
    share, noise = ob.difference(tables[0], tables[1])
    assert 0.5 * noise < share < 2 * noise  # nothing but noise
    share, noise = ob.difference(tables[0], tables[2])
    exact = 2 * norm.cdf(0.25) - 1  # of two normal distributions half a deviation apart
    assert share == pytest.approx(exact, abs=0.02) and share > 5 * noise
    assert abs(ob.skewness(one)[0]) < 4 * ob.skewness(one)[1]
    value, error = ob.skewness(rng.exponential(size=(100, 1000)))
    assert value == pytest.approx(2, abs=0.1) and 0 < error < 0.1


def test_observables_of_a_trajectory(model_file, ethanol, tmp_path):
    md(ethanol, model_file, tmp_path, steps=100, interval=5)
    table = ob.observables(ob.read_frames(tmp_path)).set_index("observable")
    assert 0.9 < table.loc["nearest neighbour", "mean"] < 1.3
    assert table.loc["nearest neighbour", "error"] > 0
    assert torch.isfinite(torch.tensor(table["mean"].to_numpy())).all()


# ---- what must not be lost or be wrong -----------------------------------------------------------
def test_energies_per_atom_make_a_crystal_s_energy_and_stress():
    """A model of energies per atom: n times its output, with the stress of that."""
    model = random_model(cutoff=4.0, r_max=4.0, readout="mean")
    model.target, model.unit = "formation_energy_per_atom", "eV/atom"
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=0)
    one, two = atoms.copy(), atoms.repeat((2, 1, 1))
    one.calc, two.calc = SchNetCalculator(model), SchNetCalculator(model)
    assert two.get_potential_energy() == pytest.approx(2 * one.get_potential_energy(), rel=1e-5)
    assert two.get_forces()[:8] == pytest.approx(one.get_forces(), abs=1e-4)
    assert two.get_stress() == pytest.approx(one.get_stress(), abs=1e-5)
    step, energies = 1e-3, []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * [1 + sign * step, 1, 1], scale_atoms=True)
        strained.calc = SchNetCalculator([model.double()], engine="reference")
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
    assert one.get_stress()[0] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_forces_do_not_depend_on_the_distance_from_the_origin(model_file, ethanol):
    near, far = ethanol.copy(), ethanol.copy()
    far.positions += 1e5
    near.calc, far.calc = SchNetCalculator(model_file), SchNetCalculator(model_file)
    assert far.get_forces() == pytest.approx(near.get_forces(), abs=1e-4)


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


def test_temperature_counts_what_can_move(model_file, ethanol, tmp_path):
    """Verlet from rest as a whole: 3 n - 6 momenta are free, and the first row has their share."""
    found = []
    for seed in range(40):
        md(ethanol, model_file, tmp_path / str(seed), steps=1, thermostat="none", seed=seed)
        found.append(pd.read_csv(tmp_path / str(seed) / "log.csv")["temperature_K"][0])
    error = 300 * np.sqrt(2 / (3 * len(ethanol) - 6) / len(found))
    assert np.mean(found) == pytest.approx(300, abs=4 * error)


def test_two_processes_do_not_share_a_folder(model_file, ethanol, tmp_path):
    write(tmp_path / "e.xyz", ethanol)
    command = ["md", tmp_path / "e.xyz", model_file, "-o", tmp_path / "md", "--device", "cpu"]
    command = [sys.executable, "-m", "schnet.cli", *command, "--steps", 10**7, "--checkpoint", 20]
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


def test_exploded_path_integrals_are_no_finished_ones(model_file, ethanol, tmp_path):
    settings = dict(beads=2, timestep=20.0, temperature=3000, interval=1, checkpoint=2)
    for _ in range(2):  # the second goes on from the checkpoint, to the same end
        with pytest.raises(Exploded, match="exploded at step"):
            pimd(ethanol, model_file, tmp_path, steps=500, **settings)
        assert not (tmp_path / "trajectory.h5").exists()
        frames = ob.read_frames(tmp_path / "exploded.h5")
        assert len(frames.positions) == len(frames.log) > 1


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


def test_path_integrals_of_a_crystal_with_any_cell(tmp_path):
    model = random_model(cutoff=4.0, r_max=4.0)
    model.unit, model.kind = "eV", "energy"
    atoms = bulk("C", "diamond", a=3.6)  # its cell is not triangular
    pimd(atoms, model, tmp_path, steps=4, beads=2, interval=2)
    assert (tmp_path / "trajectory.h5").exists()


def test_slightly_bent_molecules_count_as_linear():
    bent = molecule("CO2")
    bent.positions[0, 0] += 1e-3
    assert rigid_motions(bent).shape[1] == rigid_motions(molecule("CO2")).shape[1] == 5
    assert rigid_motions(molecule("H2O")).shape[1] == 6


@pytest.mark.parametrize(
    ("verb", "settings", "message"),
    [
        (md, {"steps": 1, "checkpoint": 0}, "checkpoint: 0 is not a positive number"),
        (md, {"steps": 1, "seed": -1}, "seed: -1 is negative"),
        (md, {"steps": 1, "friction": float("nan")}, "friction: nan"),
        (md, {"steps": 1, "temperature": float("inf")}, "temperature: inf"),
        (md, {"steps": 1, "thermostat": "none", "temperature": -300.0}, "temperature: -300"),
        (pimd, {"steps": 1, "checkpoint": 0}, "checkpoint: 0"),
        (relax, {"fmax": -1.0}, "fmax: -1.0 is not a positive number"),
        (modes, {"tolerance": -1.0, "relaxed": False}, "tolerance: -1.0"),
    ],
)
def test_senseless_settings_are_refused(verb, settings, message, model_file, ethanol, tmp_path):
    with pytest.raises(ConfigError, match=message):
        verb(ethanol, model_file, tmp_path / "o", **settings)


def test_what_cannot_be_is_said(model_file, ethanol, tmp_path):
    with pytest.raises(ConfigError, match="one atom has no modes"):
        modes(Atoms("O"), model_file, tmp_path / "modes", relaxed=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        md(ethanol, model_file, tmp_path / "file", steps=1)
    with pytest.raises(ConfigError, match="3 nearest neighbours of 2 atoms"):
        ob.nearest_neighbours(np.zeros((1, 1, 2, 3)), 3)
    with pytest.raises(ConfigError, match="from 1 to 65535"):
        ipi_driver(ethanol, model_file, port=99999)


def test_frames_carry_energy_forces_and_momenta(model_file, ethanol, tmp_path):
    last = md(ethanol, model_file, tmp_path, steps=20, interval=20)
    frame = read(tmp_path / "trajectory.extxyz")
    assert frame.get_potential_energy() == pytest.approx(last.get_potential_energy(), rel=1e-9)
    forces = last.get_forces(apply_constraint=False)
    assert frame.get_forces() == pytest.approx(forces, abs=1e-6)
    assert frame.get_momenta() == pytest.approx(last.get_momenta(), abs=1e-6)


def test_modes_come_with_displacements_and_a_word_on_differences(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    atoms = molecule("H2O")
    first, other = random_model(0).double(), random_model(1).double()
    for model in (first, other):
        model.unit, model.kind = "eV", "energy"
    found = modes(atoms, first, tmp_path, others=[other], relaxed=False)
    images = read(tmp_path / "modes.extxyz", ":")
    assert [i.info["mode"] for i in images] == [1, 2, 3]
    moved = np.linalg.norm(images[2].arrays["displacement"], axis=1)
    assert moved.max() == pytest.approx(1, abs=1e-6)
    real = found.frequencies[found.frequencies > 0]
    assert found.zero_point_energy == pytest.approx(0.5 * real.sum() * units.invcm)
    assert "frequencies differ from the reference's by" in caplog.text


def test_observables_on_the_screen(model_file, ethanol, tmp_path, capsys):
    md(ethanol, model_file, tmp_path, steps=60, interval=5)
    assert main(["observables", str(tmp_path), "-o", str(tmp_path / "o.csv")]) == 0
    shown = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "o.csv").set_index("observable")
    row = next(line for line in shown.splitlines() if line.startswith("potential energy"))
    value, error = re.search(r"(\S+) ± (\S+) eV", row).groups()
    expected = table.loc["potential energy"]
    assert float(value) == pytest.approx(expected["mean"], abs=expected["error"])
    assert float(error) == pytest.approx(expected["error"], rel=0.06)
    assert main(["observables", str(tmp_path), "--neighbours", "9"]) == 2
