"""Committed models give the numbers that they gave when they were committed."""

import json

import golden
import numpy as np
import pytest
import torch

from schnet.data.structures import from_atoms
from schnet.engine import native
from schnet.engine.inference import Predictor
from schnet.models import load_model

NUMBERS = json.loads(golden.NUMBERS.read_text())
STRUCTURES = golden.structures()
ENGINES = ["reference", "table", "native"]


def test_every_structure_has_its_numbers():
    assert NUMBERS.keys() == STRUCTURES.keys() == golden.MODELS.keys()


@pytest.mark.parametrize("name", golden.MODELS)
def test_by_the_equations_in_float64(name):
    value, forces = golden.reference(name, STRUCTURES[name])
    expected = np.array(NUMBERS[name]["forces"])
    assert value == pytest.approx(NUMBERS[name]["value"], rel=1e-12, abs=1e-12)
    assert np.array(forces) == pytest.approx(expected, abs=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", golden.MODELS)
def test_by_every_engine_in_float32(name, engine):
    if engine == "native" and native.unavailable():
        pytest.skip(native.unavailable())
    model = load_model(golden.model_file(name))
    data = from_atoms([STRUCTURES[name]], cutoff=model.hyperparameters.cutoff)
    batch = data.batch(torch.tensor([0]))
    value, forces = Predictor(model, engine=engine)(batch, forces=True)
    expected = np.array(NUMBERS[name]["forces"])
    rounding = 5e-6 * model.scale.item() * len(expected)
    assert value.item() == pytest.approx(NUMBERS[name]["value"], rel=1e-14, abs=rounding)
    # forces in a crystal are small sums of large terms
    bound = max(1e-4 * np.abs(expected).max(), 5e-6 * model.scale.item())
    assert forces.numpy() == pytest.approx(expected, abs=bound)
