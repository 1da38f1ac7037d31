"""Compiled models give the energies and forces of their files, in Python and in C++."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from conftest import ROOT, random_model

from schnet import SchNetCalculator
from schnet.cli import main
from schnet.data.structures import from_atoms
from schnet.export import export
from schnet.models import save_model
from schnet.units import factor

compiles = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler (g++)")


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


@compiles
def test_a_package_gives_the_same(water):
    model, package = water
    compiled = torch._inductor.aoti_load_package(str(package))
    for name in ("H2O", "CH3CH2OH", "CH4"):
        tensors, batch = inputs(molecule(name))
        energy, forces = compiled(*tensors)
        expected, expected_forces = model.energy_and_forces(batch)
        assert energy.item() == pytest.approx((expected + model.offset(batch)).item(), abs=1e-10)
        assert forces.numpy() == pytest.approx(expected_forces.numpy(), abs=1e-10)


@compiles
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


@compiles
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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cutoff", [None, 4.0])
def test_a_graph_of_onnx_gives_the_same(cutoff, dtype, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = random_model(n_interactions=2, n_features=8, cutoff=cutoff, r_max=cutoff or 20.0)
    model.set_offsets(scale=2.0, mean=-3.0, atomrefs=np.linspace(-5, 5, 100))
    save_model(tmp_path / "m.pt", model, target="energy", unit="eV", force_unit="eV/Å")
    command = ["export", str(tmp_path / "m.pt"), str(tmp_path / "m.onnx"), "--dtype", dtype]
    assert main(command) == 0
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    names = [value.name for value in session.get_inputs()]
    salt = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    salt.rattle(0.1, seed=1)
    for atoms in [salt] if cutoff else [molecule("H2O"), molecule("CH3CH2OH")]:
        tensors, batch = inputs(atoms, cutoff)
        arrays = [t.numpy().astype(dtype) if t.is_floating_point() else t.numpy() for t in tensors]
        energy, forces = session.run(["energy", "forces"], dict(zip(names, arrays, strict=True)))
        expected, expected_forces = model.double().energy_and_forces(batch)
        near = 1e-7 if dtype == "float64" else 2e-5
        assert energy == pytest.approx((expected + model.offset(batch)).item(), abs=near)
        assert forces == pytest.approx(expected_forces.numpy(), abs=near)


def test_the_graph_of_the_documentation(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "md17_ethanol", "ethanol.onnx"]) == 0
    program = re.search(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)[1]
    found: dict = {}
    exec(program, found)
    atoms = molecule("CH3CH2OH")
    atoms.calc = SchNetCalculator("md17_ethanol", engine="reference")
    scale = factor("kcal/mol", "eV")
    assert scale * found["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert scale * found["forces"] == pytest.approx(atoms.get_forces(), abs=1e-4)


def test_onnx_wants_its_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    save_model(tmp_path / "m.pt", random_model(), target="energy", unit="eV", force_unit="eV/Å")
    assert main(["export", str(tmp_path / "m.pt"), str(tmp_path / "m.onnx")]) == 2
    assert "pip install onnx onnxscript" in capsys.readouterr().err


def test_models_that_cannot_be_exported(tmp_path, capsys):
    save_model(tmp_path / "m.pt", random_model(readout="dipole"), target="mu", unit="Debye")
    assert main(["export", str(tmp_path / "m.pt"), str(tmp_path / "m.pt2")]) == 2
    assert "m.pt: is no sum or mean of contributions of atoms" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.pt"), str(tmp_path / "m.so")]) == 2
    assert "must end in .pt2 or .onnx" in capsys.readouterr().err
    assert not (tmp_path / "m.pt2").exists()
