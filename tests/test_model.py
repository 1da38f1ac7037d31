"""The model obeys physics and the paper's equations."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from conftest import random_model, random_molecule

from schnet.data.structures import Batch, Structures, from_atoms
from schnet.errors import ConfigError, DataError, ModelError
from schnet.models import build, load_model, save_model
from schnet.models.layers import ssp
from schnet.models.schnet import Hyperparameters, SchNet, cfconv


def energy_forces(model, atoms_list, cutoff=None, dtype=torch.float64):
    data = from_atoms(atoms_list, cutoff=cutoff, dtype=dtype)
    batch = data.batch(torch.arange(len(data)))
    e, f = model.energy_and_forces(batch)
    return (e.double() + model.offset(batch)).numpy(), f.numpy()


@pytest.fixture
def model():
    return random_model().double()


def test_ssp_is_zero_at_zero_and_matches_its_formula():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    assert ssp(torch.zeros(1)).item() == pytest.approx(0, abs=1e-7)
    assert torch.allclose(ssp(x), torch.log(0.5 * torch.exp(x) + 0.5))


def test_gaussians_are_those_of_the_authors():
    m = SchNet(Hyperparameters())
    assert m.radial_basis.centres.shape == (200,)
    assert m.radial_basis.centres[1].item() == pytest.approx(20 / 199)
    e = m.radial_basis(torch.tensor([1.0], dtype=torch.float64))
    assert e[0, 0].item() == pytest.approx(math.exp(-10.0))
    assert SchNet(Hyperparameters(r_max=5.0)).radial_basis.centres.shape == (50,)


def test_cfconv_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    w = torch.tensor([[10.0, 1.0], [100.0, 2.0]])  # pairs (0, 1) and (1, 2)
    batch = Batch(
        None, None, torch.tensor([0, 3]), None, torch.tensor([0, 1]), torch.tensor([1, 2])
    )
    assert cfconv(x, w, batch).tolist() == [[30.0, 4.0], [510.0, 14.0], [300.0, 8.0]]
    n_neighbours = torch.tensor([1.0, 2.0, 1.0])
    assert cfconv(x, w, batch, n_neighbours).tolist() == [[30.0, 4.0], [255.0, 7.0], [300.0, 8.0]]


def test_a_fresh_model_predicts_the_mean():
    m = SchNet(Hyperparameters(n_interactions=1, n_features=16))
    m.set_offsets(scale=3.0, mean=-2.0)
    e, f = energy_forces(m.double(), [molecule("H2O")])
    assert e[0] == pytest.approx(-6.0) and np.abs(f).max() == 0


def test_rotation_translation_permutation(model):
    rng = np.random.default_rng(1)
    atoms = molecule("CH3CH2OH")
    e, f = energy_forces(model, [atoms])
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(atoms))
    moved = Atoms(atoms.numbers[order], (atoms.positions @ q + [3.0, -2.0, 5.0])[order])
    e2, f2 = energy_forces(model, [moved])
    assert e2 == pytest.approx(e, abs=1e-10)
    assert f2 == pytest.approx((f @ q)[order], abs=1e-10)


def test_forces_are_the_negative_gradient(model):
    atoms = molecule("CH3OH")
    _, f = energy_forces(model, [atoms])
    for a, c in ((0, 0), (1, 2), (5, 1)):
        e = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[a, c] += sign * 1e-4
            e.append(energy_forces(model, [moved])[0][0])
        assert f[a, c] == pytest.approx(-(e[0] - e[1]) / 2e-4, abs=1e-7)
    assert np.abs(f.sum(0)).max() < 1e-12


def test_company_in_a_batch_does_not_matter(model):
    rng = np.random.default_rng(0)
    molecules = [Atoms(*random_molecule(rng, n)) for n in (3, 12, 1, 7)]
    together, f = energy_forces(model, molecules)
    alone = [energy_forces(model, [m]) for m in molecules]
    assert together == pytest.approx([a[0][0] for a in alone], abs=1e-10)
    assert f == pytest.approx(np.concatenate([a[1] for a in alone]), abs=1e-10)


def test_float32_agrees_with_float64():
    m = random_model()
    atoms = [molecule("C6H6")]
    e32, f32 = energy_forces(m, atoms, dtype=torch.float32)
    e64, f64 = energy_forces(m.double(), atoms)
    assert e32 == pytest.approx(e64, rel=3e-6) and f32 == pytest.approx(
        f64, abs=1e-4 * np.abs(f64).max()
    )


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_choice_of_the_unit_cell_does_not_matter(readout):
    m = random_model(cutoff=5.0, r_max=5.0, readout=readout).double()
    primitive = bulk("NaCl", "rocksalt", a=5.6)
    cubic = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    skewed = primitive.copy()
    skewed.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ primitive.cell.array)
    skewed.positions += [0.3, 0.1, -0.2]
    skewed.wrap()
    e = [
        energy_forces(m, [a], cutoff=5.0)[0][0] / (1 if readout == "mean" else len(a))
        for a in (primitive, cubic, cubic.repeat((1, 2, 1)), skewed)
    ]
    assert e[1:] == pytest.approx([e[0]] * 3, abs=1e-9)


def test_neighbours_of_tiny_cells_include_self_images():
    data = from_atoms([bulk("Cu", "fcc", a=3.6)], cutoff=5.0)
    brute = [
        n
        for n in np.ndindex(9, 9, 9)
        if 0 < np.linalg.norm((np.array(n) - 4) @ bulk("Cu", "fcc", a=3.6).cell.array) < 5.0
    ]
    assert data.n_neighbours.tolist() == [len(brute)] and len(data.pair_i) == len(brute) // 2


def test_periodic_forces_are_the_negative_gradient():
    m = random_model(cutoff=4.0, r_max=4.0).double()
    atoms = bulk("NaCl", "rocksalt", a=5.3)
    atoms.rattle(0.1, seed=1)
    _, f = energy_forces(m, [atoms], cutoff=4.0)
    e = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 0] += sign * 1e-5
        e.append(energy_forces(m, [moved], cutoff=4.0)[0][0])
    assert f[1, 0] == pytest.approx(-(e[0] - e[1]) / 2e-5, abs=1e-6)


def test_mean_readout_is_intensive_and_sum_extensive():
    for readout, ratio in (("mean", 1), ("sum", 2)):
        m = random_model(readout=readout, r_max=3.0).double()
        one = molecule("H2O")
        far = one.copy()
        far.positions += [500.0, 0, 0]
        # filters far beyond the Gaussians are constant: remove them to compare separate molecules
        with torch.no_grad():
            for block in m.interactions:
                block.filter_network.dense1.bias.zero_()
                block.filter_network.dense2.bias.zero_()
        single, double = energy_forces(m, [one])[0][0], energy_forces(m, [one + far])[0][0]
        assert double == pytest.approx(ratio * single, rel=1e-9)


def test_dipole_layer():
    m = random_model(readout="dipole").double()
    atoms = molecule("CH3OH")
    e, _ = energy_forces(m, [atoms])
    batch = from_atoms([atoms], dtype=torch.float64).batch(torch.tensor([0]))
    q = m.atomwise(batch).detach().numpy()
    expected = np.linalg.norm(q @ (atoms.positions - atoms.get_center_of_mass())) * 1.3 + 0.7
    assert e[0] == pytest.approx(expected, rel=1e-6)


def test_offsets_stay_in_float64():
    m = random_model().float()
    m.set_offsets(scale=1.0, mean=-23856.0176)
    assert m.mean.dtype == torch.float64
    batch = from_atoms([Atoms("C20", np.random.default_rng(0).normal(size=(20, 3)) * 3)]).batch(
        torch.tensor([0])
    )
    assert m.offset(batch).item() == pytest.approx(-23856.0176 * 20, abs=1e-9)


def test_structures_that_cannot_be_meant_are_refused():
    with pytest.raises(DataError, match="no neighbour within"):
        from_atoms([Atoms("Cu", cell=[20, 20, 20], pbc=True)], cutoff=5.0)
    with pytest.raises(DataError, match="no volume"):
        from_atoms([Atoms("Cu", cell=[3, 3, 0], pbc=True)], cutoff=5.0)
    with pytest.raises(DataError, match="no cutoff"):
        from_atoms([bulk("Cu")])


def test_batch_of_structures_in_any_order():
    rng = np.random.default_rng(0)
    z, r = zip(*(random_molecule(rng, n) for n in (2, 5, 3)), strict=True)
    data = Structures(np.concatenate(z), np.concatenate(r), np.array([0, 2, 7, 10]))
    batch = data.batch(torch.tensor([2, 0]))
    assert batch.n_atoms.tolist() == [3, 2]
    assert batch.i.tolist() == [0, 0, 1, 3] and batch.j.tolist() == [1, 2, 2, 4]
    assert torch.allclose(batch.positions[:3], torch.tensor(r[2], dtype=torch.float32))


# ---- model files ---------------------------------------------------------------------------------
def test_model_file_round_trip(tmp_path):
    m = random_model()
    save_model(
        tmp_path / "m.pt",
        m,
        target="energy",
        unit="eV",
        alternatives={"raw": {k: 2 * v for k, v in m.state_dict().items()}},
    )
    loaded = load_model(tmp_path / "m.pt")
    assert loaded.unit == "eV" and all(
        torch.equal(a, b) for a, b in zip(m.parameters(), loaded.parameters(), strict=True)
    )
    assert torch.equal(
        load_model(tmp_path / "m.pt", weights="raw").output1.weight, 2 * m.output1.weight
    )
    with pytest.raises(ModelError, match="no weights 'rwa'"):
        load_model(tmp_path / "m.pt", weights="rwa")


def test_pickle_bomb_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"format": "schnet-model", "bomb": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ModelError, match="refused"):
        load_model(tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


def test_other_files_are_no_models(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"something": 1}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "absent.pt"):
        with pytest.raises(ModelError, match=name):
            load_model(tmp_path / name)


def test_typo_in_a_hyperparameter():
    with pytest.raises(ConfigError, match="did you mean 'n_features'"):
        build("schnet", {"n_feature": 64})
    with pytest.raises(ConfigError, match="no architecture"):
        build("schnett", {})
