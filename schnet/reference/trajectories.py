"""Molecular dynamics trajectories in the files of MD17, ISO17 and C20."""

from __future__ import annotations

import tarfile
import tempfile
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


#: positions [n, 3] in Å, energy in eV, forces [n, 3] in eV/Å
Frame = tuple[np.ndarray, float, np.ndarray]


def _start(atoms: Atoms, rng, temperature: float = TEMPERATURE) -> None:
    """Maxwell–Boltzmann velocities without total linear and angular momentum."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)


def langevin(
    atoms: Atoms, frames: int, interval: int, rng, warm_up: int = 100, step: float = 1.0
) -> list[Frame]:
    """Frames of a Langevin run at 500 K with the centre of mass fixed.

    Args:
        atoms: start geometry with a calculator; moved along.
        frames: how many.
        interval: steps between them.
        rng: numpy generator of velocities and noise.
        warm_up: steps before the first.
        step: fs.
    """
    _start(atoms, rng)
    atoms.set_constraint(FixCom())
    dynamics = Langevin(
        atoms,
        step * units.fs,
        temperature_K=TEMPERATURE,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(warm_up)
    out = []
    for _ in range(frames):
        dynamics.run(interval)
        forces = atoms.get_forces(apply_constraint=False)
        out.append((atoms.positions.copy(), atoms.get_potential_energy(), forces))
    return out


def make_md17(
    dataset: str, folder, *, workers: int = 1, frames: int = 450, interval: int = 4, seed: int = 0
) -> tuple[str, list[Path]]:
    """Write md17_NAME.npz: frames in the order of the run, as upstream.

    Args:
        dataset: md17_NAME.
        folder: where the file goes.
        workers: not used, a trajectory is one process.
        frames: how many.
        interval: fs between them.
        seed: together with the name, of velocities and noise.

    Returns:
        How the file was made, and the file.
    """
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
            name=np.array(name),
            theory=np.array("GFN2-xTB"),
        )
    return "made here: GFN2-xTB (tblite), Langevin at 500 K", [path]


def find_isomers(count: int, rng) -> list[Atoms]:
    """Distinct relaxed C7O2H10: furan with three more C and one more O, attached one by one.

    Raises:
        SchNetError: fewer than ``count`` could be built.
    """
    from ase.build import molecule

    found: list[Atoms] = []
    seen = set()
    for _ in range(200 * count):
        if len(found) == count:
            break
        atoms = molecule("C4H4O")
        for group in rng.permutation(["CH3", "CH3", "CH3", "OH"]):
            hydrogen = int(rng.choice(np.flatnonzero(atoms.numbers == 1)))
            atoms = build.substitute(atoms, hydrogen, str(group))
        key = build.fingerprint(atoms)
        adjacency = build.bonds(atoms)
        oxygen = np.flatnonzero(atoms.numbers == 8)
        peroxide = adjacency[np.ix_(oxygen, oxygen)].any()
        if key in seen or peroxide or not build.connected(atoms):
            continue
        seen.add(key)
        if xtb.relax(atoms, fmax=0.05) and build.fingerprint(atoms) == key:
            found.append(atoms)
    if len(found) < count:
        raise SchNetError(
            f"only {len(found)} of {count} C7O2H10 isomers could be built; ask for fewer"
        )
    return found


#: the databases of ISO17
DATABASES = ("reference", "reference_eq", "test_within", "test_other", "test_eq")


def _iso17_part(frame: int, is_other: bool) -> str:
    """The database of a frame: every fifth of a known isomer tests, unknown isomers only test."""
    if is_other:
        return "test_other"
    return "test_within" if frame % 5 == 4 else "reference"


def make_iso17(
    dataset: str,
    folder,
    *,
    workers: int = 1,
    isomers: int = 10,
    frames: int = 40,
    interval: int = 5,
    seed: int = 0,
) -> tuple[str, list[Path]]:
    """Write iso17.tar.gz; a fifth of the isomers occurs in test_other and test_eq only.

    Args:
        dataset: not used.
        folder: where the archive goes.
        workers: not used.
        isomers: how many.
        frames: per isomer.
        interval: fs between them.
        seed: of isomers, velocities, noise and the choice of the validation set.

    Returns:
        How the archive was made, and the archive.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    rng = np.random.default_rng([seed, 17])
    other = max(1, isomers // 5)
    rows: dict[str, list[tuple[Atoms, float, np.ndarray]]] = {name: [] for name in DATABASES}
    for k, atoms in enumerate(find_isomers(isomers, rng)):
        relaxed = atoms.copy(), atoms.get_potential_energy(), atoms.get_forces()
        rows["test_eq" if k < other else "reference_eq"].append(relaxed)
        for frame, (r, e, f) in enumerate(langevin(atoms, frames, interval, rng)):
            rows[_iso17_part(frame, k < other)].append((Atoms(atoms.numbers, r), e, f))
    count = len(rows["reference"])
    validation = sorted(rng.choice(np.arange(1, count + 1), count // 6, replace=False))
    path = Path(folder) / "iso17.tar.gz"
    with tempfile.TemporaryDirectory() as work:
        for name in DATABASES:
            with connect(Path(work) / f"{name}.db", append=False) as database:
                for atoms, e, f in rows[name]:
                    atoms.calc = SinglePointCalculator(atoms, energy=e)
                    database.write(atoms, total_energy=e, data={"atomic_forces": f})
        listed = "".join(f"{v}\n" for v in validation)
        (Path(work) / "validation_ids.txt").write_text(listed)
        with atomic(path) as temporary, tarfile.open(temporary, "w:gz") as tar:
            for file in [*(f"{name}.db" for name in DATABASES), "validation_ids.txt"]:
                tar.add(Path(work) / file, f"iso17/{file}")
    return "made here: GFN2-xTB (tblite), Langevin at 500 K", [path]


def dodecahedron() -> Atoms:
    """C20 with equal bonds of 1.45 Å."""
    phi = (1 + 5**0.5) / 2
    points = [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
    for a in (-1 / phi, 1 / phi):
        for b in (-phi, phi):
            points += [(0, a, b), (a, b, 0), (b, 0, a)]
    return Atoms("C20", np.array(points) * (1.45 * phi / 2))


def _c20_trajectory(task) -> Path:
    """One trajectory; task: folder, number, frames, step in fs, model file or None, seed."""
    folder, k, frames, step, model, seed = task
    from ase.io import write
    from ase.md.nose_hoover_chain import NoseHooverChainNVT

    atoms = dodecahedron()
    if model:
        from schnet.simulation.calculator import SchNetCalculator

        atoms.calc = SchNetCalculator(model, device="cpu")
    else:
        atoms.calc = xtb.XTB()
    xtb.minimise(atoms, fmax=0.05, steps=300)
    rng = np.random.default_rng([seed, k])
    # start with twice the kinetic energy: half of it goes into the potential energy of the cage
    _start(atoms, rng, 2 * TEMPERATURE)
    dynamics = NoseHooverChainNVT(
        atoms, timestep=step * units.fs, temperature_K=TEMPERATURE, tdamp=100 * step * units.fs
    )
    dynamics.run(2000 if model else 50)
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


def make_c20(
    dataset: str,
    folder,
    *,
    workers: int = 1,
    trajectories: int = 5,
    frames: int = 90,
    model: str | None = None,
    seed: int = 0,
) -> tuple[str, list[Path]]:
    """Write c20_trajectory_K.extxyz: Nosé–Hoover at 500 K with 1 fs, every frame.

    Args:
        dataset: not used.
        folder: where the files go.
        workers: processes.
        trajectories: how many.
        frames: per trajectory.
        model: model file that drives them instead of GFN2-xTB.
        seed: of the velocities, together with the trajectory's number.

    Returns:
        How the files were made, and the files.
    """
    tasks = [(folder, k, frames, 1.0, model, seed) for k in range(trajectories)]
    with processes(min(workers, trajectories)) as pool:
        files = list(pool.map(_c20_trajectory, tasks))
    for old in set(Path(folder).glob("c20_trajectory_*.extxyz")) - set(files):
        old.unlink()  # of an earlier call; it would be converted with the new ones
    method = "made here: GFN2-xTB (tblite)"
    if model:
        method = "distilled: the authors' published force model"
    return f"{method}, Nosé–Hoover at 500 K, 1 fs", files
