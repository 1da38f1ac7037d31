"""Local chemical potentials and filters against dense sums, symmetries and refusals."""

import copy
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from ase.neighborlist import neighbor_list
from conftest import random_model

from schnet.analysis.filters import filter_cut
from schnet.analysis.plane import cut_plane
from schnet.analysis.potential import Surroundings, local_potential, with_probes
from schnet.analysis.structures import close_packed, diamond, graphite, named_molecule
from schnet.analysis.surface import MAX_GRID, isosurface
from schnet.cli import main
from schnet.data.structures import from_atoms
from schnet.errors import ConfigError, DataError, ModelError
from schnet.figures import chemical_potential, chemical_potential_cut, filters
from schnet.models import build, save_model, validate_model
from schnet.models.contract import BaseHyperparameters, Model
from schnet.models.dtnn import DTNN
from schnet.models.layers import ssp

CUTOFF = 4.2
FIGURE_5 = ("benzene", "toluene", "methane", "pyrazine", "propane")


def make(architecture, periodic):
    """A random model in float64 that knows H, C, N, O."""
    limited = {"cutoff": CUTOFF} if periodic else {}
    if architecture == "schnet":
        model = random_model(**limited, **({"r_max": CUTOFF} if periodic else {}))
    else:
        torch.manual_seed(0)
        model = build("dtnn", limited)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        model.set_offsets(scale=0.8, mean=-3.0)
    model.set_elements(torch.tensor([1, 6, 7, 8]))
    model.provenance = {"periodic": periodic}
    return model.double().eval().requires_grad_(False)


def structure(periodic):
    atoms = bulk("CO", "rocksalt", a=3.9) if periodic else molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def points_around(atoms, count=7, seed=0):
    rng = np.random.default_rng(seed)
    return atoms.positions.mean(0) + rng.normal(0, 2.0, (count, 3))


def images(atoms, cutoff):
    """Positions and indices of all atoms, with plenty of periodic images."""
    if cutoff is None:
        return atoms.positions, np.arange(len(atoms))
    steps = np.stack(np.meshgrid(*[range(-5, 6)] * 3), -1).reshape(-1, 3)
    shifted = (steps @ atoms.cell.array)[:, None] + atoms.positions
    return shifted.reshape(-1, 3), np.tile(np.arange(len(atoms)), len(steps))


def dense_potential(model, atoms, point, z):
    """Eq. 6 written out for one probe: sums over all images, no neighbour lists."""
    cutoff = model.hyperparameters.cutoff
    places, owner = images(atoms, cutoff)

    def sensed(r):
        d = np.linalg.norm(places - r, axis=1)
        near = d < (cutoff or np.inf)
        near &= d > 1e-9  # no atom senses itself
        return torch.as_tensor(d[near]), torch.as_tensor(owner[near])

    receivers = [sensed(r) for r in [*atoms.positions, point]]
    x = model.embedding(torch.as_tensor([*atoms.numbers, z]))
    for layer in range(model.hyperparameters.n_interactions):
        refined = []
        for k, (d, j) in enumerate(receivers):
            if model.name == "schnet":
                block = model.interactions[layer]
                w = block.filter_network(model.radial_basis(d))
                v = (block.in2f(x[j]) * w).sum(0) / (len(d) if cutoff else 1)
                refined.append(x[k] + block.dense(ssp(block.f2out(v))))
            else:
                factors = model.w_cf(x[j]) * model.w_df(model.expansion(d))
                refined.append(x[k] + torch.tanh(model.w_fc(factors)).sum(0))
        x = torch.stack(refined)
    if model.name == "schnet":
        y = model.output2(ssp(model.output1(x[-1])))
    else:
        y = model.out2(torch.tanh(model.out1(x[-1])))
    return float(model.scale * y)


BOTH = pytest.mark.parametrize("architecture", ["schnet", "dtnn"])
EVERY = pytest.mark.parametrize("periodic", [False, True])


@BOTH
@EVERY
def test_a_probe_is_an_atom_that_no_atom_senses(architecture, periodic):
    model, atoms = make(architecture, periodic), structure(periodic)
    points = points_around(atoms)
    found = local_potential(model, atoms, points, "N")
    expected = [dense_potential(model, atoms, r, 7) for r in points]
    assert np.ptp(expected) > 1e-3
    assert found == pytest.approx(expected, abs=1e-9)


@BOTH
@EVERY
def test_rotation_and_translation_leave_it_unchanged(architecture, periodic):
    model, atoms = make(architecture, periodic), structure(periodic)
    points = points_around(atoms)
    before = local_potential(model, atoms, points)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    move = np.array([1.3, -0.4, 7.7])
    atoms.set_cell(atoms.cell.array @ turn)
    atoms.positions = atoms.positions @ turn + move
    assert local_potential(model, atoms, points @ turn + move) == pytest.approx(before, abs=1e-9)


@BOTH
def test_it_is_periodic_and_the_same_in_a_supercell(architecture):
    model, atoms = make(architecture, True), structure(True)
    points = points_around(atoms)
    before = local_potential(model, atoms, points)
    shifted = points + np.array([2, -1, 3]) @ atoms.cell.array
    assert local_potential(model, atoms, shifted) == pytest.approx(before, abs=1e-9)
    larger = local_potential(model, atoms.repeat((2, 1, 3)), points)
    assert larger == pytest.approx(before, abs=1e-9)
    atoms.positions[1] -= atoms.cell.array[2]  # another image of the same atom
    assert local_potential(model, atoms, points) == pytest.approx(before, abs=1e-9)


@BOTH
def test_a_probe_that_sends_ever_less_leaves_the_molecule_as_it_is(architecture):
    model, atoms = make(architecture, False), structure(False)
    alone = from_atoms([atoms], dtype=torch.float64).batch(torch.zeros(1, dtype=torch.int64))
    point = atoms.positions[:1] + np.array([0.6, 0.9, 1.1])
    probed = with_probes(alone, 6, point, *Surroundings(atoms, None).pairs(point))
    energy = model.atomwise(alone).sum()

    def change(weight):
        sends = probed.sends.clone()
        sends[-1] = weight
        return float(abs(model.atomwise(replace(probed, sends=sends))[:-1].sum() - energy))

    changes = [change(weight) for weight in (1.0, 1e-2, 1e-4, 0.0)]
    assert changes[0] > 1e-3
    assert changes[1] > changes[2] and changes[2] == pytest.approx(1e-2 * changes[1], rel=0.2)
    assert changes[3] < 1e-12


def test_float32_by_the_filter_table_agrees_with_the_equations():
    for periodic in (False, True):
        model, atoms = make("schnet", periodic), structure(periodic)
        points = np.concatenate([points_around(atoms, 60), atoms.positions[:1]])  # one on an atom
        expected = local_potential(model, atoms, points)
        found = local_potential(copy.deepcopy(model).float(), atoms, points)
        assert found == pytest.approx(expected, abs=2e-5 * np.abs(expected).max())


def test_offsets_are_left_out_and_probes_do_not_sense_each_other():
    model, atoms = make("schnet", False), structure(False)
    points = points_around(atoms, 5)
    together = local_potential(model, atoms, points)
    alone = [local_potential(model, atoms, point)[0] for point in points]
    assert together == pytest.approx(alone, abs=1e-12)
    model.set_offsets(scale=float(model.scale), mean=99.0, atomrefs=torch.full((100,), 5.0))
    assert local_potential(model, atoms, points) == pytest.approx(together, abs=1e-12)
    assert local_potential(model, atoms, np.zeros((0, 3))).shape == (0,)


def test_far_from_a_molecule_within_a_cutoff_a_probe_is_alone():
    model = random_model(cutoff=3.0, r_max=3.0).double()
    atoms = molecule("H2O")
    first, second = local_potential(model, atoms, [[20.0, 0, 0], [0, 30.0, 0]], "O")
    alone = from_atoms([Atoms("O")], cutoff=3.0, dtype=torch.float64)
    y = model.atomwise(alone.batch(torch.zeros(1, dtype=torch.int64))).detach()
    assert first == second == pytest.approx(float(model.scale * y))


class Deaf(Model):
    """An architecture that knows no probes."""


def test_what_cannot_be_probed_is_refused():
    molecular, crystalline = make("schnet", False), make("schnet", True)
    water, crystal, origin = molecule("H2O"), structure(True), np.zeros((1, 3))
    with pytest.raises(DataError, match="element Cl: the model has never seen it"):
        local_potential(molecular, molecule("CH3Cl"), origin)
    with pytest.raises(DataError, match="element F: .*trained on H, C, N, O"):
        local_potential(molecular, water, origin, "F")
    for probe in ("carbon", "X", "Lr"):
        with pytest.raises(ConfigError, match=f"probe '{probe}': no element"):
            local_potential(molecular, water, origin, probe)
    slab = structure(True)
    slab.pbc = True, True, False
    with pytest.raises(DataError, match="periodic in some directions only"):
        local_potential(crystalline, slab, origin)
    with pytest.raises(DataError, match="periodic, but the model was trained on molecules"):
        local_potential(molecular, crystal, origin)
    with pytest.raises(DataError, match="not periodic, but the model was trained on crystals"):
        local_potential(crystalline, water, origin)
    with pytest.raises(ModelError, match="dipole"):
        local_potential(random_model(readout="dipole"), water, origin)
    with pytest.raises(ModelError, match="this architecture has no probe atoms"):
        local_potential(Deaf(BaseHyperparameters()), water, origin)


class Loud(DTNN):
    """Claims to have probes, but lets them be heard."""

    def atomwise(self, batch):
        return super().atomwise(replace(batch, sends=None))


def test_a_model_that_claims_probes_is_checked():
    validate_model("dtnn")
    with pytest.raises(ModelError, match="probes: the outputs of atoms beside a moved probe"):
        validate_model(Loud())


@pytest.mark.parametrize("name", FIGURE_5)
def test_the_isosurface_surrounds_all_atoms_and_the_printed_one_does_not_exist(name):
    atoms = named_molecule(name)
    surface = isosurface(atoms)
    away = surface.vertices[:, None] - atoms.positions
    distance = np.linalg.norm(away, axis=2)
    assert (distance**-2.0).sum(1) == pytest.approx(3.7, rel=0.02)
    assert 0.5 < distance.min(1).min() and distance.min(1).max() < 1.6
    # one closed surface: as many vertices and triangles as edges, plus 2 (Euler)
    assert len(surface.vertices) - len(surface.triangles) / 2 == 2
    outside = surface.vertices + 0.05 * surface.normals
    there = np.linalg.norm(outside[:, None] - atoms.positions, axis=2)
    assert ((there**-2.0).sum(1) < 3.65).all()
    # Σ |r - r_i| is convex: its smallest value is that of the geometric median
    r = atoms.positions.mean(0)
    for _ in range(200):
        w = 1 / np.linalg.norm(atoms.positions - r, axis=1).clip(1e-9)
        r = (w[:, None] * atoms.positions).sum(0) / w.sum()
    assert np.linalg.norm(atoms.positions - r, axis=1).sum() > 3.7


def test_grids_that_are_too_large_or_too_coarse_are_refused():
    with pytest.raises(DataError, match=f"more than {MAX_GRID:,}; use at least 0.0"):
        isosurface(molecule("CH4"), spacing=0.01)
    with pytest.raises(DataError, match="too wide to see a surface"):
        isosurface(molecule("CH4"), isovalue=1e5)
    with pytest.raises(DataError, match="must be positive"):
        isosurface(molecule("CH4"), spacing=0)
    with pytest.raises(DataError, match="use fewer"):
        cut_plane(diamond(), points=2000)
    with pytest.raises(DataError, match="cannot be made"):
        cut_plane(diamond(), size=-1)


def test_crystals_have_their_bonds():
    for atoms, bond, count in ((diamond(), 1.5446, 4), (graphite(), 1.4209, 3)):
        d = neighbor_list("d", atoms, 1.7)
        assert d == pytest.approx(bond, abs=1e-3) and len(d) == count * len(atoms)
    for atoms in close_packed("Al"):
        d = neighbor_list("d", atoms, 3.2)
        assert d == pytest.approx(4.05 / np.sqrt(2), abs=1e-6) and len(d) == 12 * len(atoms)


def test_a_cut_goes_through_the_first_atom_and_marks_those_in_the_plane():
    plane = cut_plane(graphite(), size=6.0, points=31)
    middle = 31**2 // 2
    assert plane.points[middle] == pytest.approx(graphite().positions[0])
    assert plane.coordinates[middle] == pytest.approx([0, 0])
    d = np.linalg.norm(plane.atoms[:, None] - plane.atoms, axis=2)
    np.fill_diagonal(d, np.inf)
    assert d.min(1) == pytest.approx(1.4209, abs=1e-3)  # a layer of graphite: all bonded
    assert len(plane.atoms) > 10 and np.abs(plane.atoms).max() <= 3.0


@pytest.mark.parametrize("cell", [diamond().cell.array, graphite().cell.array])
def test_filters_of_a_crystal_are_sums_over_images(cell):
    model = make("schnet", True)
    found = filter_cut(model, cell=cell, size=5.0, points=5, block=1)
    network = model.interactions[1].filter_network
    steps = np.stack(np.meshgrid(*[range(-6, 7)] * 3), -1).reshape(-1, 3) @ cell
    axis = np.linspace(-2.5, 2.5, 5)
    for k, y in enumerate(axis):
        for m, x in enumerate(axis):
            d = np.linalg.norm(steps + np.array([x, y, 0]), axis=1)
            near = torch.as_tensor(d[d < CUTOFF])
            expected = network(model.radial_basis(near)).sum(0)
            assert found[k, m] == pytest.approx(expected.numpy(), abs=1e-9)


def test_filters_of_one_atom_are_round_and_end_at_the_cutoff():
    model = make("schnet", True)
    cut = filter_cut(model, size=10.0, points=21)
    assert cut == pytest.approx(cut.transpose(1, 0, 2)) and cut == pytest.approx(cut[::-1])
    d = torch.tensor([1.5], dtype=torch.float64)
    filter_there = model.interactions[0].filter_network(model.radial_basis(d))[0]
    assert cut[10, 13] == pytest.approx(filter_there.numpy())
    assert not cut[0].any() and cut[10, 10].any()
    with pytest.raises(ModelError, match="need a model with a cutoff"):
        filter_cut(make("schnet", False), cell=diamond().cell.array)
    with pytest.raises(ModelError, match="dtnn: this architecture has no filters"):
        filter_cut(make("dtnn", True))


def test_features_of_figure_2_vary_most_and_differ():
    x = np.linspace(0, 6, 40)[:, None] * np.ones(40)
    waves = [3 * np.sin(x), -2 * np.sin(x), np.cos(2 * x), 0.1 * np.sin(3 * x), 0 * x]
    assert filters.most_varying(np.stack(waves, -1), 3).tolist() == [0, 2, 3]


def test_figure_6_takes_crystals_that_the_model_knows():
    probe, found = chemical_potential_cut.crystals([1, 6, 8], "C")
    assert probe == "C" and list(found) == ["graphite (0001)", "diamond (001)"]
    for elements, wanted in (([13, 28], "C"), ([6, 13], "O")):
        probe, found = chemical_potential_cut.crystals(elements, wanted)
        symbols = {s for atoms in found.values() for s in atoms.symbols}
        assert symbols == {probe} and probe in ("Al", "C")


def test_figure_5_has_one_run_per_architecture(tmp_path):
    from schnet.project import load_project

    project = load_project({"scale": "small", "results_dir": str(tmp_path)})
    runs = project.runs_of("learning_curves_qm9")
    chosen = chemical_potential.choose([run for run in runs if chemical_potential.uses(run)])
    assert [run.settings.architecture for run in chosen] == ["dtnn", "schnet"]
    assert {run.n_train for run in chosen} == {max(run.n_train for run in runs)}
    assert "schnet-T6" in chosen[1].path


@pytest.fixture
def files(tmp_path):
    """A folder with a molecular and a crystalline model, a molecule, a crystal and two frames."""
    for periodic in (False, True):
        model = make("schnet", periodic).float()
        name = "crystals.pt" if periodic else "molecules.pt"
        about = {"target": "energy", "unit": "eV", "provenance": model.provenance}
        save_model(tmp_path / name, model, **about)
    write(tmp_path / "water.xyz", molecule("H2O"))
    write(tmp_path / "two.xyz", [molecule("H2O")] * 2)
    write(tmp_path / "crystal.cif", structure(True))
    return tmp_path


def test_the_command_writes_pictures_pages_and_tables(files, monkeypatch):
    monkeypatch.chdir(files)

    def potential(*args):
        assert main(["potential", "--device", "cpu", *args]) == 0

    potential("molecules.pt", "water.xyz", "--probe", "O", "-o", "water.csv")
    data = pd.read_csv(files / "water.csv")
    points = data[["x", "y", "z"]].to_numpy()
    model = make("schnet", False)
    expected = local_potential(model, molecule("H2O"), points, "O")
    assert data["Ω(O) / eV"].to_numpy() == pytest.approx(expected, abs=2e-3)
    potential("molecules.pt", "two.xyz@1", "--spacing", "0.3", "-o", "water.html")
    page = (files / "water.html").read_text()
    assert len(page) > 1_000_000 and '<script src="http' not in page and "Plotly.newPlot" in page
    potential("crystals.pt", "crystal.cif", "--points", "21", "-o", "cut.png")
    assert (files / "cut.png").stat().st_size > 1000


def test_the_command_refuses_what_does_not_fit(files):
    from schnet.analysis.files import potential_file

    def refused(error, text, *args, **options):
        with pytest.raises(error, match=text):
            potential_file(files / args[0], files / args[1], files / args[2], **options)
        assert not (files / args[2]).exists()

    refused(DataError, "two.xyz: 2 structures, one is expected", "molecules.pt", "two.xyz", "a.png")
    refused(DataError, "no such file", "molecules.pt", "missing.xyz", "a.png")
    refused(ConfigError, "the suffix must be one of", "molecules.pt", "water.xyz", "a.gif")
    refused(ConfigError, "flat; use .png", "crystals.pt", "crystal.cif", "a.html", points=5)
    refused(DataError, "crystal.cif: .*on molecules", "molecules.pt", "crystal.cif", "a.png")
    refused(DataError, "water.xyz: .*on crystals", "crystals.pt", "water.xyz", "a.png")
    refused(DataError, "grid points", "molecules.pt", "water.xyz", "a.png", spacing=0.001)


def test_figure_5_says_what_it_does_not_draw(tmp_path):
    from schnet.project import load_project

    project = load_project({"scale": "demo", "results_dir": str(tmp_path)})
    figure = project.figures["figure_5"] | {"options": {"molecules": ["CH4", "NH3"]}}
    runs = [run for run in project.runs_of("learning_curves_qm9") if chemical_potential.uses(run)]
    for run in chemical_potential.choose(runs):
        model = build(run.settings.architecture, run.settings.model)
        model.set_elements(torch.tensor([1, 6]))
        save_model(run.model_file, model, target="U0", unit="eV")
    picture, text, pages = chemical_potential.draw(project, figure)
    data = pd.read_csv(io.StringIO(text))
    assert set(data["molecule"]) == {"CH4"} and len(data.columns) == 4 + 2
    said = [t.get_text() for ax in picture.axes for t in ax.texts]
    assert said.count("not drawn:\nelement N") == 2
    assert "Plotly.newPlot" in pages["html"]
