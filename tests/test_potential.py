"""What moves the atoms: the calculator, its neighbour lists and cautions, the socket driver."""

import copy
import json
import logging
import pickle
import socket
import threading
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
from conftest import ROOT, random_model
from simulated import crystal, crystal_model

from schnet.cli import main
from schnet.data.neighbours import neighbour_pairs
from schnet.errors import ConfigError, DataError, ModelError, SchNetError
from schnet.models import build, load_model, save_model
from schnet.run import make_spec
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.copies import NeighbourList
from schnet.simulation.ipi_driver import ipi_driver
from schnet.simulation.md import md
from schnet.simulation.potential import Potential
from schnet.simulation.relax import in_double
from schnet.training.loop import train
from schnet.training_range import CLOSE


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


def test_forces_do_not_depend_on_the_distance_from_the_origin(model_file, ethanol):
    near, far = ethanol.copy(), ethanol.copy()
    far.positions += 1e5
    near.calc, far.calc = SchNetCalculator(model_file), SchNetCalculator(model_file)
    assert far.get_forces() == pytest.approx(near.get_forces(), abs=1e-4)


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


def test_a_model_that_heeds_where_a_structure_lies_is_no_potential(tmp_path, ethanol):
    model = build("fully_connected", {})
    save_model(tmp_path / "model.pt", model, target="energy", unit="eV")
    with pytest.raises(ModelError, match="fully_connected: moving or turning .* is no potential"):
        SchNetCalculator(tmp_path / "model.pt")


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


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_impossible_numbers_of_threads(model_file, ethanol, toy_run, tmp_path, threads):
    with pytest.raises(ConfigError, match=f"threads: {threads} is not within 1–"):
        SchNetCalculator(model_file, threads=threads).get_forces(ethanol)
    with pytest.raises(ConfigError, match=f"threads: {threads} is not within 1–"):
        train(make_spec(toy_run), tmp_path, threads=threads)


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
