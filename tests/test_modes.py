"""Relaxation and normal modes: analytic cases, two ways to the Hessian, the authors' C20 model."""

import logging

import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.io import read, write
from conftest import random_model, schnet
from simulated import Spring, crystal, crystal_model

from schnet.cli import main
from schnet.errors import ConfigError, SchNetError
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.hessian import (
    finite_difference_hessian,
    frequencies,
    hessian,
    rigid_motions,
)
from schnet.simulation.modes import compare, degenerate, modes, normal_modes
from schnet.simulation.potential import Potential
from schnet.simulation.relax import in_double, largest_force, relax


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


def test_slightly_bent_molecules_count_as_linear():
    bent = molecule("CO2")
    bent.positions[0, 0] += 1e-3
    assert rigid_motions(bent).shape[1] == rigid_motions(molecule("CO2")).shape[1] == 5
    assert rigid_motions(molecule("H2O")).shape[1] == 6


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
