# %% [markdown]
# # From data to dynamics
# A model of one molecule, from reference data to molecular dynamics, on one core. This file is a
# notebook: `jupytext --to notebook docs/tour.py`, or open it in an editor that knows cells. It runs
# as a script too (`python docs/tour.py`) and writes into the folder `tour`.

# %%
import json
from pathlib import Path

import matplotlib
import numpy as np
from ase import units
from ase.build import molecule
from ase.constraints import FixCom
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from schnet import SchNetCalculator, train
from schnet.simulation.md import md
from schnet.simulation.modes import normal_modes
from schnet.simulation.relax import relax

matplotlib.use("Agg")
import matplotlib.pyplot as plt

folder = Path("tour")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## Data
# Ethanol at 500 K, driven by GFN2-xTB, a cheap reference method: every fifth step becomes a frame
# with its energy and forces. Any file with labels that ASE reads would do.

# %%
atoms = molecule("CH3CH2OH")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
random = np.random.default_rng(0)
thermalize_momenta(atoms, temperature_K=500, rng=random)
atoms.set_constraint(FixCom())
friction = 0.01 / units.fs
dynamics = Langevin(
    atoms, 0.5 * units.fs, temperature_K=500, friction=friction, fixcm=False, rng=random
)
frames = []


def keep_frame():
    """A copy with energy and forces as its results."""
    frame = atoms.copy()
    frame.set_constraint()
    frame.calc = TBLite(method="GFN2-xTB", verbosity=0)
    frame.get_forces()
    frames.append(frame)


dynamics.attach(keep_frame, interval=5)
dynamics.run(1500)
write(folder / "frames.extxyz", frames)
energies = np.array([frame.get_potential_energy() for frame in frames])
print(f"{len(frames)} frames, energies spread over {energies.std():.3f} eV")

# %% [markdown]
# ## Training
# Model, sizes and schedule are chosen from the data; what is to be otherwise is an argument (the
# attributes of `schnet.own.Wishes`). Called again, it finds the training finished. On the command
# line: `schnet train --data tour/frames.extxyz -o tour/model --steps 2000`.

# %%
model = train(folder / "frames.extxyz", folder / "model", steps=2000)
errors = json.loads((folder / "model" / "metrics.json").read_text())["parts"]["test"]
for quantity, error in errors.items():
    print(f"{quantity}: mean absolute error {error['mae']:.4f} {error['unit']}")

# %% [markdown]
# ## The model in ASE
# It relaxes the molecule, to nearly the structure of its teacher, and has its own normal modes.

# %%
relaxed = relax(molecule("CH3CH2OH"), model, fmax=1e-4)
teacher = relaxed.copy()
teacher.calc = TBLite(method="GFN2-xTB", verbosity=0)
print(f"the teacher's largest force there: {np.abs(teacher.get_forces()).max():.3f} eV/Å")
ours = normal_modes(relaxed, model).frequencies
print(f"{len(ours)} modes, {ours.min():.0f} to {ours.max():.0f} cm⁻¹")

# %% [markdown]
# ## Dynamics
# Ten thousand steps of 0.5 fs. They can be killed and continue where they were.

# %%
last = md(relaxed, model, folder / "md", steps=10_000, temperature=300)
log = np.genfromtxt(folder / "md" / "log.csv", delimiter=",", names=True)
print(f"mean temperature {log['temperature_K'].mean():.0f} K")

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(log["time_ps"], log["temperature_K"], lw=0.8)
ax.set(xlabel="time / ps", ylabel="temperature / K")
figure.savefig(folder / "temperature.png", dpi=150)

# %% [markdown]
# ## Where it ends
# A model knows no chemistry but that of its frames. An isomer of ethanol is far off, a molecule of
# another size more so (`schnet predict` warns of it):

# %%
for name in ("CH3CH2OH", "CH3OCH3", "CH3OH"):
    other = molecule(name)
    other.calc = SchNetCalculator(model)
    energy = other.get_potential_energy()
    other.calc = TBLite(method="GFN2-xTB", verbosity=0)
    print(f"{name:9} model {energy:9.3f} eV, teacher {other.get_potential_energy():9.3f} eV")
