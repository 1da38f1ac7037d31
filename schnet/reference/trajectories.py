"""Molecular dynamics trajectories in the files of MD17, ISO17 and C20."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation

from schnet.data.md17 import MOLECULES
from schnet.errors import SchNetError
from schnet.files import atomic
from schnet.reference import build, processes, xtb
from schnet.units import KCAL_PER_MOL

TEMPERATURE = 500.0  # K, as in MD17


def _start(atoms, rng, temperature=TEMPERATURE):
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)


def langevin(atoms, frames: int, interval: int, rng, warm_up: int = 200, step: float = 1.0):
    """Frames (positions, energy in eV, forces in eV/Å) of a Langevin run at 500 K, every ``interval`` steps of ``step`` fs."""
    _start(atoms, rng)
    atoms.set_constraint(FixCom())
    dynamics = Langevin(atoms, step * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.run(warm_up)
    out = []
    for _ in range(frames):
        dynamics.run(interval)
        out.append((atoms.positions.copy(), atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)))
    return out


def make_md17(dataset: str, folder, *, workers: int = 1, frames: int = 450, interval: int = 4, seed: int = 0):
    """Write md17_NAME.npz with ``frames`` frames 4 fs apart (shuffled neither here nor upstream)."""
    name = dataset.removeprefix("md17_")
    atoms = build.named(name)
    xtb.relax(atoms, fmax=0.02)
    rng = np.random.default_rng([seed, *dataset.encode()])
    run = langevin(atoms, frames, interval, rng)
    path = Path(folder) / f"md17_{MOLECULES[name]}.npz"
    with atomic(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(
            f,
            z=atoms.numbers.astype("u1"),
            R=np.array([r for r, _, _ in run]),
            E=np.array([[e] for _, e, _ in run]) / KCAL_PER_MOL,
            F=np.array([forces for _, _, forces in run]) / KCAL_PER_MOL,
            name=name,
            theory="GFN2-xTB",
        )
    return "made here: GFN2-xTB (tblite), Langevin at 500 K", [path]


def find_isomers(count: int, rng) -> list[Atoms]:
    """Distinct C7O2H10 molecules: furan with three more C and one more O, attached one by one."""
    from ase.build import molecule

    found, seen = [], set()
    for _ in range(200 * count):
        if len(found) == count:
            break
        atoms = molecule("C4H4O")
        for group in rng.permutation(["CH3", "CH3", "CH3", "OH"]):
            atoms = build.substitute(atoms, int(rng.choice(np.flatnonzero(atoms.numbers == 1))), str(group))
        key = build.fingerprint(atoms)
        adjacency = build.bonds(atoms)
        oxygen = np.flatnonzero(atoms.numbers == 8)
        if key in seen or not build.connected(atoms) or adjacency[np.ix_(oxygen, oxygen)].any():
            continue
        seen.add(key)
        if xtb.relax(atoms, fmax=0.05) and build.fingerprint(atoms) == key:
            found.append(atoms)
    if len(found) < count:
        raise SchNetError(f"only {len(found)} of {count} C7O2H10 isomers could be built; ask for fewer")
    return found


def make_iso17(dataset: str, folder, *, workers: int = 1, isomers: int = 10, frames: int = 40, interval: int = 5, seed: int = 0):
    """Write iso17.tar.gz: reference, test_within and test_other databases; a fifth of the isomers occurs in test_other only."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    rng = np.random.default_rng([seed, 17])
    folder = Path(folder)
    work = folder / "iso17"
    work.mkdir(parents=True, exist_ok=True)
    names = ("reference", "reference_eq", "test_within", "test_other", "test_eq")
    for name in names:
        (work / f"{name}.db").unlink(missing_ok=True)
    other = max(1, isomers // 5)
    rows = {name: [] for name in names}
    for k, atoms in enumerate(find_isomers(isomers, rng)):
        relaxed = atoms.copy(), atoms.get_potential_energy(), atoms.get_forces()
        rows["test_eq" if k < other else "reference_eq"].append(relaxed)
        for frame, (r, e, f) in enumerate(langevin(atoms, frames, interval, rng)):
            part = "test_other" if k < other else "test_within" if frame % 5 == 4 else "reference"
            rows[part].append((Atoms(atoms.numbers, r), e, f))
    for name in names:
        with connect(work / f"{name}.db", append=False) as database:
            for atoms, e, f in rows[name]:
                atoms.calc = SinglePointCalculator(atoms, energy=e)
                database.write(atoms, total_energy=e, data={"atomic_forces": f})
    validation = sorted(rng.choice(np.arange(1, len(rows["reference"]) + 1), len(rows["reference"]) // 6, replace=False))
    (work / "validation_ids.txt").write_text("".join(f"{v}\n" for v in validation))
    path = folder / "iso17.tar.gz"
    with atomic(path) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for file in [*(f"{n}.db" for n in names), "validation_ids.txt"]:
            tar.add(work / file, f"iso17/{file}")
    (work / ".complete").touch()
    return "made here: GFN2-xTB (tblite), Langevin at 500 K", [path]


def dodecahedron() -> Atoms:
    """C20 with equal bonds of 1.45 Å."""
    phi = (1 + 5**0.5) / 2
    points = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    for a in (-1 / phi, 1 / phi):
        for b in (-phi, phi):
            points += [(0, a, b), (a, b, 0), (b, 0, a)]
    return Atoms("C20", np.array(points) * (1.45 * phi / 2))


def _c20_trajectory(task):
    folder, k, frames, step, model, seed = task
    from ase.io import write
    from ase.md.nose_hoover_chain import NoseHooverChainNVT

    atoms = dodecahedron()
    if model:
        from schnet.simulation.calculator import SchNetCalculator

        atoms.calc = SchNetCalculator(model, device="cpu")
    else:
        atoms.calc = xtb.XTB()
    from ase.optimize import LBFGS

    LBFGS(atoms, logfile=None).run(fmax=0.05, steps=300)
    rng = np.random.default_rng([seed, k])
    # start with twice the kinetic energy: half of it goes into the potential energy of the relaxed cage
    _start(atoms, rng, 2 * TEMPERATURE)
    dynamics = NoseHooverChainNVT(atoms, timestep=step * units.fs, temperature_K=TEMPERATURE, tdamp=100 * step * units.fs)
    dynamics.run(2000 if model else 100)
    images = []
    for _ in range(frames):
        dynamics.run(1)
        image = Atoms(atoms.numbers, atoms.positions)
        image.info["energy_kcal"] = atoms.get_potential_energy() / KCAL_PER_MOL
        image.arrays["forces_kcal"] = atoms.get_forces() / KCAL_PER_MOL
        images.append(image)
    path = Path(folder) / f"c20_trajectory_{k}.extxyz"
    with atomic(path) as temporary:
        write(temporary, images, format="extxyz")
    return path


def make_c20(dataset: str, folder, *, workers: int = 1, trajectories: int = 5, frames: int = 90, model: str | None = None, seed: int = 0):
    """Write c20_trajectory_K.extxyz: Nosé–Hoover at 500 K with 1 fs, every frame, driven by a model file or GFN2-xTB."""
    tasks = [(folder, k, frames, 1.0, model, seed) for k in range(trajectories)]
    with processes(min(workers, trajectories)) as pool:
        files = list(pool.map(_c20_trajectory, tasks))
    method = "distilled: the authors' published force model" if model else "made here: GFN2-xTB (tblite)"
    return f"{method}, Nosé–Hoover at 500 K, 1 fs", files
