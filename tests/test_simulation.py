"""What simulations refuse, and how they say it."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from conftest import random_model
from simulated import crystal, crystal_model

from schnet.cli import main
from schnet.errors import ConfigError, DataError
from schnet.simulation import observables as ob
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.ipi_driver import ipi_driver
from schnet.simulation.md import md
from schnet.simulation.modes import modes
from schnet.simulation.pimd import pimd
from schnet.simulation.relax import in_double, relax


def load_model_that_knows(symbols):
    model = random_model().eval()
    model.set_elements(Atoms(symbols).numbers)
    return model


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


def test_commands_refuse_what_is_no_input(model_file, tmp_path, capsys):
    (tmp_path / "bad.xyz").write_text("no structure\n")
    for name, message in (("none.xyz", "no such file"), ("bad.xyz", "cannot be read by ASE")):
        command = ["md", tmp_path / name, model_file, "-o", tmp_path / "o", "--steps", 1]
        assert main([*map(str, command), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
