"""Compiled models give the energies and forces of their files, in Python and in C++."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from conftest import ROOT, random_model

from schnet.cli import main
from schnet.data.structures import from_atoms
from schnet.export import export
from schnet.models import save_model

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler (g++)")


def inputs(atoms, cutoff=None):
    """What a package takes, and the batch it stands for."""
    batch = from_atoms([atoms], cutoff=cutoff, dtype=torch.float64).batch(torch.arange(1))
    shift = batch.shift
    if shift is None:
        shift = torch.zeros(len(batch.i), 3, dtype=torch.float64)
    numbers = batch.atomic_numbers.long()
    return (batch.positions, numbers, batch.i.long(), batch.j.long(), shift), batch


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """A model that knows water, and its package."""
    folder = tmp_path_factory.mktemp("export")
    model = random_model(n_interactions=1, n_features=8)
    model.set_offsets(scale=2.0, mean=-3.0, atomrefs=np.linspace(-5, 5, 100))
    save_model(folder / "m.pt", model, target="energy", unit="eV", force_unit="eV/Å")
    assert main(["export", str(folder / "m.pt"), str(folder / "m.pt2")]) == 0
    return model.double(), folder / "m.pt2"


def test_a_package_gives_the_same(water):
    model, package = water
    compiled = torch._inductor.aoti_load_package(str(package))
    for name in ("H2O", "CH3CH2OH", "CH4"):
        tensors, batch = inputs(molecule(name))
        energy, forces = compiled(*tensors)
        expected, expected_forces = model.energy_and_forces(batch)
        assert energy.item() == pytest.approx((expected + model.offset(batch)).item(), abs=1e-10)
        assert forces.numpy() == pytest.approx(expected_forces.numpy(), abs=1e-10)


def test_the_program_of_the_documentation(water, tmp_path):
    model, package = water
    text = (ROOT / "docs/export.md").read_text()
    program = re.search(r"```cpp\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "evaluate.cpp").write_text(program)
    commands = re.search(r"```\n(T=.*?)```", text, re.DOTALL)[1]
    commands = commands.replace("ethanol.pt2", str(package))
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    atoms = molecule("H2O")
    atoms.positions = [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]
    _, batch = inputs(atoms)
    expected, forces = model.energy_and_forces(batch)
    lines = done.stdout.split("\n")
    assert float(lines[0]) == pytest.approx((expected + model.offset(batch)).item(), abs=1e-8)
    rows = [list(map(float, line.split())) for line in lines[1:4]]
    assert np.array(rows) == pytest.approx(forces.numpy(), abs=1e-8)


def test_crystals_in_single_precision(tmp_path):
    model = random_model(n_interactions=1, n_features=8, cutoff=4.0, r_max=4.0, readout="mean")
    model.set_offsets(scale=1.5, mean=-1.0)
    save_model(tmp_path / "m.pt", model, target="energy", unit="eV/atom", force_unit="eV/Å")
    export(tmp_path / "m.pt", tmp_path / "m.pt2", dtype=torch.float32)
    compiled = torch._inductor.aoti_load_package(str(tmp_path / "m.pt2"))
    crystal = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    crystal.rattle(0.1, seed=1)
    tensors, batch = inputs(crystal, 4.0)
    tensors = [t.float() if t.is_floating_point() else t for t in tensors]
    energy, forces = compiled(*tensors)
    expected, expected_forces = model.double().energy_and_forces(batch)
    assert energy.item() == pytest.approx((expected + model.offset(batch)).item(), abs=1e-5)
    assert forces.numpy() == pytest.approx(expected_forces.numpy(), abs=1e-5)


def test_models_that_cannot_be_exported(tmp_path, capsys):
    save_model(tmp_path / "m.pt", random_model(readout="dipole"), target="mu", unit="Debye")
    assert main(["export", str(tmp_path / "m.pt"), str(tmp_path / "m.pt2")]) == 2
    assert "m.pt: is no sum or mean of contributions of atoms" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.pt"), str(tmp_path / "m.so")]) == 2
    assert "ends in .pt2" in capsys.readouterr().err
    assert not (tmp_path / "m.pt2").exists()
