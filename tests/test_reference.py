"""Data made with real calculators: what they are called, what they hold."""

import pytest
from ase import units


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("benzene", "C6H6"),
        ("toluene", "C7H8"),
        ("malonaldehyde", "C3H4O2"),
        ("salicylic_acid", "C7H6O3"),
        ("aspirin", "C9H8O4"),
        ("ethanol", "C2H6O"),
        ("uracil", "C4H4N2O2"),
        ("naphthalene", "C10H8"),
    ],
)
def test_made_molecules_are_what_they_are_called(name, formula):
    from schnet.reference import build, xtb

    atoms = build.named(name)
    assert atoms.get_chemical_formula(mode="hill") == formula
    graph = build.fingerprint(atoms)
    assert (
        xtb.relax(atoms, fmax=0.05) and build.connected(atoms) and build.fingerprint(atoms) == graph
    )


def test_made_qm9_files_pass_the_converter(tmp_path):
    from schnet.data import qm9
    from schnet.data.store import Store
    from schnet.reference import generate

    generate("qm9", "molecules", tmp_path, workers=2, molecules=8)
    notes = qm9.convert(tmp_path, tmp_path / "q.h5", name="qm9", about={})
    assert notes["uncharacterized molecules removed"] >= 1
    store = Store(tmp_path / "q.h5")
    s = store.structure(0)
    p = s.properties
    assert (
        p["U0"] < p["U"] < p["H"]
        and p["G"] < p["H"]
        and p["gap"] == pytest.approx(p["lumo"] - p["homo"], abs=1e-4)
    )
    assert (
        s.atomic_numbers.tolist().count(6) == 1 and 900 < p["zpve"] < 1400 and 5 < p["Cv"] < 8
    )  # methane: 1200 meV, 6.5 cal/mol K


def test_made_forces_are_gradients(tmp_path):
    from schnet.data import md17
    from schnet.data.store import Store
    from schnet.reference import generate

    generate("md17_ethanol", "trajectory", tmp_path, frames=4)
    md17.convert(tmp_path, tmp_path / "e.h5", name="md17_ethanol", about={})
    s = Store(tmp_path / "e.h5").structure(2)
    from ase import Atoms

    from schnet.reference.xtb import XTB

    energies = []
    for sign in (1, -1):
        atoms = Atoms(s.atomic_numbers, s.positions)
        atoms.positions[1, 1] += sign * 1e-3
        atoms.calc = XTB()
        energies.append(atoms.get_potential_energy() / units.kcal * units.mol)
    assert s.properties["forces"][1, 1] == pytest.approx(
        -(energies[0] - energies[1]) / 2e-3, rel=2e-3, abs=0.05
    )


def test_trajectories_of_an_earlier_call_are_removed(tmp_path):
    from schnet.reference import generate

    old = tmp_path / "c20_trajectory_7.extxyz"
    old.write_text("left over")
    generate("c20", "c20", tmp_path, trajectories=1, frames=1)
    assert [path.name for path in tmp_path.glob("*.extxyz")] == ["c20_trajectory_0.extxyz"]
