"""Every architecture obeys the contract, every breach of it is found, and one file is enough."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from conftest import ROOT, random_model
from torch import nn

import schnet.models
from schnet.data.structures import from_atoms
from schnet.engine.inference import Predictor
from schnet.errors import ConfigError, DataError, ModelError
from schnet.models import (
    architectures,
    build,
    check_hyperparameters,
    load_model,
    save_model,
    validate_model,
)
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model
from schnet.models.dtnn import DTNN, Hyperparameters
from schnet.simulation.calculator import SchNetCalculator

# ---- all architectures ---------------------------------------------------------------------------
REFUSED = {"enn_s2s": {"readout": "dipole"}, "fully_connected": {"cutoff": 3.0}}


@pytest.mark.parametrize(
    "settings",
    [{}, {"readout": "mean"}, {"readout": "dipole"}, {"cutoff": 3.0}],
    ids=["sum", "mean", "dipole", "cutoff"],
)
@pytest.mark.parametrize("name", architectures())
def test_architecture_obeys_the_contract(name, settings):
    refused = REFUSED.get(name, {})
    if settings.items() & refused.items():
        with pytest.raises(ConfigError, match=next(iter(refused))):
            build(name, settings)
        return
    validate_model(name, **settings)


def test_schnet_without_normalisation_obeys_the_contract():
    validate_model("schnet", cutoff=3.0, normalise_neighbours=False)


# ---- every breach is found -----------------------------------------------------------------------
class Toy(Model):
    """A small model that obeys the contract."""

    def __init__(self, hyperparameters):
        super().__init__(hyperparameters)
        self.charge = nn.Embedding(MAX_Z, 1)

    def components(self):
        return Components(
            source="this file",
            embedding="a charge per element",
            basis="exp(-d)",
            message="charge · basis",
            cutoff=self.usual_cutoff,
            update="added once",
            readout="sum over atoms",
        )

    def atomwise(self, batch):
        i, j, q = batch.i.long(), batch.j.long(), self.charge(batch.atomic_numbers).squeeze(-1)
        pair = torch.exp(-batch.distances())
        return q + torch.zeros_like(q).index_add(0, i, q[j] * pair).index_add(0, j, q[i] * pair)


class Constant(Toy):
    def atomwise(self, batch):
        return self.charge(batch.atomic_numbers).squeeze(-1) + 0 * batch.positions[:, 0]


class FixedOrigin(Toy):
    def atomwise(self, batch):
        return super().atomwise(batch) + batch.positions.square().sum(1)


class FixedAxis(Toy):
    def atomwise(self, batch):
        zeros = torch.zeros_like(batch.positions[:, 0])
        along = batch.vectors()[:, 0].square()
        along = along * torch.exp(-batch.distances())
        i, j = batch.i.long(), batch.j.long()
        return super().atomwise(batch) + zeros.index_add(0, i, along).index_add(0, j, along)


class OrderedAtoms(Toy):
    def atomwise(self, batch):
        place = torch.arange(len(batch.positions)) - batch.atom_ptr[batch.structure]
        return super().atomwise(batch) * (1 + place)


class LooksAtTheBatch(Toy):
    def atomwise(self, batch):
        return super().atomwise(batch) / len(batch)


class LooksAtThePadding(Toy):
    def atomwise(self, batch):
        padded = (batch.n_atoms == 7).any() and (batch.i == batch.j).any()
        return super().atomwise(batch) * (2.0 if padded else 1.0)


class DoubleForces(Toy):
    def energy_and_forces(self, batch, create_graph=False):
        energy, forces = super().energy_and_forces(batch, create_graph)
        return energy, 2 * forces


class RoundedOffsets(Toy):
    def offset(self, batch):
        return super().offset(batch).float().double()


class FloatOffsets(Toy):
    def offset(self, batch):
        return super().offset(batch).float()


class SecretState(Toy):
    def __init__(self, hyperparameters):
        super().__init__(hyperparameters)
        self.secret = 1 + torch.rand((), dtype=torch.float64)

    def forward(self, batch):
        return super().forward(batch) * self.secret.to(batch.positions.dtype)


class ForgetsElements(Toy):
    def __init__(self, hyperparameters):
        super().__init__(hyperparameters)
        self.register_buffer("elements", self.elements, persistent=False)


class TakesEveryElement(Toy):
    def check_elements(self, atomic_numbers):
        pass


class Nameless(Toy):
    def components(self):
        return Model.components(self)


class Silent(Toy):
    def components(self):
        return replace(super().components(), message="", update=" ")


def test_the_toy_itself_obeys_the_contract():
    validate_model(Toy(BaseHyperparameters()))
    validate_model(Toy(BaseHyperparameters(cutoff=3.0)))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Constant, "shapes: the output does not depend on the positions"),
        (FixedOrigin, "translation"),
        (FixedAxis, "rotation"),
        (OrderedAtoms, "permutation"),
        (LooksAtTheBatch, "batch mates"),
        (LooksAtThePadding, "padding"),
        (DoubleForces, "forces = -dE/dr"),
        (RoundedOffsets, "precision: the offsets differ"),
        (FloatOffsets, "precision: the offset is torch.float32"),
        (SecretState, "save and load: the energies differ"),
        (ForgetsElements, "save and load: the elements"),
        (TakesEveryElement, "unseen elements"),
        (Nameless, "add components(), which says what it is made of"),
        (Silent, "components: message, update: say it in a few words"),
    ],
)
def test_broken_models_are_found(broken, check):
    with pytest.raises(ModelError, match=f"^{broken.__name__}: {re.escape(check)}"):
        validate_model(broken(BaseHyperparameters()))


def test_a_model_without_atomwise_says_so():
    class Empty(Model):
        pass

    with pytest.raises(NotImplementedError, match="Empty has neither atomwise nor forward"):
        validate_model(Empty(BaseHyperparameters()))


# ---- hyper-parameters ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("schnett", {}, "no architecture 'schnett'; did you mean 'schnet'"),
        ("contract", {}, "no architecture 'contract'"),
        ("schnet", {"n_feature": 64}, "no hyper-parameter 'n_feature'; did you mean 'n_features'"),
        ("dtnn", {"n_features": 64}, "dtnn has no hyper-parameter 'n_features'"),
        ("schnet", {"n_features": -2}, "n_features: -2 is not positive"),
        ("schnet", {"n_features": 63}, "not an even number"),
        ("schnet", {"n_features": 64.0}, "n_features: 64.0 is not a whole number"),
        ("schnet", {"n_interactions": "6"}, "n_interactions: '6' is not a whole number"),
        ("schnet", {"n_interactions": True}, "n_interactions: True is not a whole number"),
        ("schnet", {"gamma": math.nan}, "gamma: nan is not a finite number"),
        ("schnet", {"gamma": None}, "gamma: None is not a number"),
        ("schnet", {"cutoff": 0}, "cutoff: 0 is not positive"),
        ("schnet", {"cutoff": "5 Å"}, "cutoff: '5 Å' is not a number or null"),
        ("schnet", {"readout": "average"}, "readout: 'average' is none of sum, mean, dipole"),
        ("schnet", {"normalise_neighbours": True}, "needs a cutoff"),
        ("schnet", {"normalise_neighbours": 1, "cutoff": 5}, "is not true or false or null"),
        ("schnet", {"r_max": 0.1}, "room for one Gaussian"),
        ("dtnn", {"sigma": 0.0}, "sigma: 0.0 is not positive"),
    ],
)
def test_hyperparameters_that_cannot_be_meant(name, values, message):
    for function in (check_hyperparameters, build):
        with pytest.raises(ConfigError, match=re.escape(message)):
            function(name, values)


def test_whole_numbers_are_numbers():
    assert check_hyperparameters("schnet", {"cutoff": 5, "r_max": 5}).n_gaussians == 50


# ---- DTNN ----------------------------------------------------------------------------------------
def test_dtnn_has_the_settings_of_its_paper():
    model = DTNN()
    p = model.hyperparameters
    assert (p.n_interactions, p.n_basis, p.n_factors, p.n_output) == (3, 30, 60, 15)
    centres = model.expansion.centres
    assert centres[0] == -1 and centres[1].item() == pytest.approx(-0.8) and len(centres) == 101
    at = torch.tensor([1.2], dtype=torch.float64)
    assert model.expansion(at)[0, 10].item() == pytest.approx(math.exp(-0.5))  # 1.0 Å: one sigma
    # shared by all passes: their number changes nothing
    assert DTNN(Hyperparameters(n_interactions=1)).n_parameters == model.n_parameters


def test_dtnn_by_hand():
    """One coefficient, one factor, one Gaussian, one output neuron, two passes, three atoms."""
    p = Hyperparameters(
        n_interactions=2, n_basis=1, n_factors=1, n_output=1, mu_min=1.0, mu_max=0.5, spacing=1.0
    )
    model = DTNN(p).double()
    values = {"w_cf": (0.5, 0.1), "w_df": (2.0, -0.3), "out1": (0.7, 0.2), "out2": (1.5, -0.4)}
    with torch.no_grad():
        model.embedding.weight[1], model.embedding.weight[8] = 0.3, -0.6
        model.w_fc.weight.fill_(0.8)
        for name, (weight, bias) in values.items():
            getattr(model, name).weight.fill_(weight)
            getattr(model, name).bias.fill_(bias)
    atoms = Atoms("OH2", [[0, 0, 0], [1.1, 0, 0], [0, 0.9, 0]])
    batch = from_atoms([atoms], dtype=torch.float64).batch(torch.tensor([0]))

    c = [-0.6, 0.3, 0.3]
    for _ in range(2):
        new = list(c)
        for i in range(3):
            for j in range(3):
                if i != j:
                    distance = float(np.linalg.norm(atoms.positions[i] - atoms.positions[j]))
                    d = math.exp(-((distance - 1.0) ** 2) / (2 * 0.2**2))
                    new[i] += math.tanh(0.8 * (0.5 * c[j] + 0.1) * (2.0 * d - 0.3))
        c = new
    expected = sum(1.5 * math.tanh(0.7 * x + 0.2) - 0.4 for x in c)
    assert model(batch).item() == pytest.approx(expected, rel=1e-12)


# ---- elements ------------------------------------------------------------------------------------
@pytest.fixture
def trained_on_water(tmp_path):
    """A model file of a model that has seen hydrogen and oxygen."""
    model = random_model()
    model.set_elements([8, 1, 1])
    save_model(tmp_path / "m.pt", model, target="energy", unit="eV", force_unit="eV/Å")
    return tmp_path / "m.pt"


def test_elements_that_the_model_has_never_seen_are_refused(trained_on_water, tmp_path):
    message = "element C: the model has never seen it; it was trained on H, O"
    water, methanol = molecule("H2O"), molecule("CH3OH")
    predictor = Predictor(load_model(trained_on_water))
    batches = [from_atoms([a]).batch(torch.tensor([0])) for a in (water, methanol)]
    predictor(batches[0])
    with pytest.raises(DataError, match=message):
        predictor(batches[1])
    anyway = Predictor(load_model(trained_on_water), any_element=True)
    assert anyway(batches[1])[0].isfinite().all()

    atoms = water.copy()
    atoms.calc = SchNetCalculator(trained_on_water)
    energy = atoms.get_potential_energy()
    atoms.numbers = [6, 1, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            atoms.get_potential_energy()
    atoms.numbers = [8, 1, 1]
    assert atoms.get_potential_energy() == energy

    write(tmp_path / "in.extxyz", [water, methanol])
    from schnet.predict import predict

    with pytest.raises(DataError, match=f"in.extxyz, structure 1: {message}"):
        predict(trained_on_water, [tmp_path / "in.extxyz"])


def test_files_that_do_not_tell_the_elements_refuse_none(trained_on_water, tmp_path):
    content = torch.load(trained_on_water, weights_only=True)
    del content["state"]["elements"], content["kind"]
    torch.save(content, tmp_path / "old.pt")
    model = load_model(tmp_path / "old.pt")
    assert model.kind == "energy" and not model.elements.any()
    model.check_elements(torch.tensor([6, 92]))


@pytest.mark.parametrize("number", [0, 100, 118])
def test_elements_that_no_model_knows_are_refused(number):
    with pytest.raises(DataError, match=f"atomic number {number}: models know elements 1–99"):
        from_atoms([Atoms([1, number], [[0, 0, 0], [0, 0, 1.5]])])


# ---- what the calculator takes -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "unit", "kind", "readout", "message"),
    [
        ("homo", "eV", None, "sum", "homo in eV, not a total energy"),
        ("gap", "eV", "other", "mean", "gap in eV, not a total energy"),
        ("zpve", "meV", None, "sum", "zpve in meV, not a total energy"),
        ("G", "eV", "other", "sum", "G in eV, not a total energy"),
        ("formation_energy_per_atom", "eV/atom", "other", "sum", "not a total energy"),
        ("energy", "eV", "energy", "mean", "by a mean over atoms"),
        ("energy", "Debye", "energy", "sum", "which is not an energy"),
    ],
)
def test_calculator_takes_total_energies_only(tmp_path, target, unit, kind, readout, message):
    model = random_model(readout=readout)
    save_model(tmp_path / "m.pt", model, target=target, unit=unit, kind=kind)
    with pytest.raises(ModelError, match=message):
        SchNetCalculator(tmp_path / "m.pt")


@pytest.mark.parametrize("target", ["energy", "U0"])
def test_calculator_takes_files_without_kind(tmp_path, target):
    save_model(tmp_path / "m.pt", random_model(), target=target, unit="kcal/mol")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert content.pop("kind") == "energy"
    torch.save(content, tmp_path / "m.pt")
    atoms = molecule("H2O")
    atoms.calc = SchNetCalculator(tmp_path / "m.pt")
    model, batch = random_model(), from_atoms([atoms]).batch(torch.arange(1))
    energy = (model(batch).double() + model.offset(batch)).item()
    assert atoms.get_potential_energy() == pytest.approx(0.0433641 * energy, rel=1e-5)


def test_calculator_follows_atoms_that_leave_each_other():
    """A molecule with a cutoff: neighbours change, and an atom may end up without any."""
    model = random_model(cutoff=3.0, r_max=3.0).double().eval()
    atoms = molecule("H2O")
    atoms.calc = SchNetCalculator(model)
    atoms.get_potential_energy()
    atoms.positions[1] += [0, 0, 40.0]
    fresh = atoms.copy()
    fresh.calc = SchNetCalculator(model)
    assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-12)
    assert np.abs(atoms.get_forces()[1]).max() == 0 and np.isfinite(atoms.get_forces()).all()


def test_normalisation_by_neighbours_can_be_switched_off():
    copper = bulk("Cu", "fcc", a=3.6)
    batch = from_atoms([copper], cutoff=3.0, dtype=torch.float64).batch(torch.tensor([0]))
    energies = {}
    for setting in (None, True, False):
        model = random_model(cutoff=3.0, r_max=3.0, normalise_neighbours=setting).double()
        energies[setting] = model(batch).item()
    assert energies[None] == energies[True] != pytest.approx(energies[False], rel=1e-3)
    with torch.no_grad():  # twelve neighbours: the filters twelve times as large
        divided = random_model(cutoff=3.0, r_max=3.0, n_interactions=1).double()
        summed = random_model(
            cutoff=3.0, r_max=3.0, n_interactions=1, normalise_neighbours=False
        ).double()
        divided.interactions[0].in2f.weight *= 12
    assert divided(batch).item() == pytest.approx(summed(batch).item(), rel=1e-12)


# ---- an architecture is one file -----------------------------------------------------------------
@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The architecture that docs/extending.md shows, as the file pair_potential.py."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = text.split("**An architecture.**")[1].split("```python\n")[1].split("```")[0]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "pair_potential.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(schnet.models, "__path__", [*schnet.models.__path__, str(folder)])
    return "pair_potential"


def test_documented_architecture_goes_all_the_way(documented, toy_run, tmp_path, capsys):
    """Validation, training, evaluation, prediction and the calculator; nothing but the one file."""
    from schnet.cli import main

    assert documented in architectures()
    validate_model(documented)
    validate_model(documented, cutoff=3.0, readout="mean")
    run = toy_run | {"architecture": documented, "model": {"n_features": 8, "cutoff": 4.0}}
    folder = tmp_path / "run"
    assert main(["train", json.dumps(run), "--output", str(folder), "--device", "cpu"]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["engine"] == "reference" and metrics["parts"]["test"]["energy"]["mae"] > 0
    structures, out = str(tmp_path / "in.extxyz"), str(tmp_path / "out.extxyz")
    atoms = molecule("CH3OH")
    write(structures, atoms)
    model = str(folder / "model.pt")
    assert main(["predict", model, structures, "-o", out, "--device", "cpu"]) == 0
    atoms.calc = SchNetCalculator(model)
    image = read(out)
    assert image.info["schnet_energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
    assert image.arrays["schnet_forces"] == pytest.approx(atoms.get_forces(), abs=1e-5)


def test_dtnn_goes_all_the_way(toy_run, tmp_path):
    from schnet.cli import main

    run = toy_run | {"architecture": "dtnn", "model": {}}
    folder = tmp_path / "run"
    assert main(["train", json.dumps(run), "--output", str(folder), "--device", "cpu"]) == 0
    model = load_model(folder / "model.pt")
    assert model.name == "dtnn" and model.w_fc.weight.abs().max() > 0  # trained
    atoms = molecule("CH3OH")
    atoms.calc = SchNetCalculator(model)
    assert np.abs(atoms.get_forces()).max() > 0


def test_files_that_are_no_architectures_say_so(documented, tmp_path):
    folder = tmp_path / "models"
    (folder / "nothing_in_it.py").write_text("")
    (folder / "no_model.py").write_text(
        "from schnet.models.contract import BaseHyperparameters\n"
        "class Hyperparameters(BaseHyperparameters):\n    pass\n"
    )
    with pytest.raises(ConfigError, match="has no class Hyperparameters"):
        build("nothing_in_it", {})
    with pytest.raises(ConfigError, match="defines 0 subclasses of Model"):
        build("no_model", {})


# ---- what architectures are made of --------------------------------------------------------------
def test_the_table_of_architectures_is_that_of_the_models(tmp_path, capsys):
    from schnet.cli import main

    assert main(["models", "--architectures"]) == 0
    text = capsys.readouterr().out
    command = "schnet models --architectures > docs/architectures.md"
    committed = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert text == committed, f"a model has changed: {command}"
    assert main(["models", "--architectures", "-o", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == text
    assert ">dimenet</td>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert main(["models", "-o", str(tmp_path / "b")]) == 2
    assert "add --architectures" in capsys.readouterr().err
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [line[0].strip("| ") for line in lines[1:]] == architectures()
    # 100 vectors of 64; 6 blocks of 3 atom-wise layers, one without bias, and a filter network of
    # 200 Gaussians; two output layers
    block = 3 * 64 * 64 + 2 * 64 + (200 * 64 + 64) + (64 * 64 + 64)
    expected = 100 * 64 + 6 * block + (64 * 32 + 32) + (32 + 1)
    assert next(line for line in lines if "schnet" in line[0])[7] == f"{expected:,}"


def test_components_are_those_of_the_hyperparameters():
    parts = build("schnet", {"cutoff": 3.0, "r_max": 3.0, "n_interactions": 2}).components()
    assert "30 Gaussians" in parts.basis and "2 blocks" in parts.update
    assert parts.cutoff == "3 Å" and "divided" in parts.message
    assert "2011.14115" in build("dimenet", {"plus_plus": True}).components().source


def test_an_architecture_that_does_not_say_what_it_is_made_of_is_named(documented, tmp_path):
    from schnet.tables import architectures_table

    file = tmp_path / "models" / "pair_potential.py"
    code = file.read_text(encoding="utf-8")
    file.with_name("unsaid.py").write_text(code.replace("def components", "def parts"))
    with pytest.raises(ModelError, match=r"^schnet/models/unsaid.py: .* add components\(\)"):
        architectures_table()
