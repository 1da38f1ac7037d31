"""Molecular dynamics with ASE's integrators; a killed run continues with the same trajectory."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io.extxyz import write_extxyz
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet.errors import ConfigError, DataError, known_or_nearest
from schnet.files import atomic
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.folder import (
    Exploded,
    Folder,
    Growing,
    Progress,
    describe,
    require_positive,
)
from schnet.simulation.hessian import rigid_motions

log = logging.getLogger("schnet")

THERMOSTATS = ("langevin", "none")
COLUMNS = (
    "step",
    "time_ps",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "temperature_K",
    "fmax_eV_A",
)
#: a trajectory has exploded when an atom has so many times the mean kinetic energy of 3/2 kT
HOT = 100
HOT_AT_LEAST = 1000.0  # K: the lowest temperature that counts for this


def hottest_atom(momenta, masses, temperature: float) -> tuple[int, float] | None:
    """The atom whose kinetic energy in eV no thermal motion explains, and that energy; or None.

    Args:
        momenta: [n, 3] in ASE's units.
        masses: [n] in u.
        temperature: in K.
    """
    kinetic = 0.5 * np.einsum("nc,nc->n", momenta, momenta) / masses
    atom = int(np.argmax(kinetic))  # the first that is not a number, where there is one
    limit = HOT * 1.5 * units.kB * max(temperature, HOT_AT_LEAST)
    return None if kinetic[atom] < limit else (atom, float(kinetic[atom]))


def degrees_of_freedom(atoms: Atoms, at_rest: bool) -> int:
    """How many momenta are free: constraints take some, and so does a start at rest as a whole.

    Args:
        atoms: the structure, with its constraints.
        at_rest: whether neither it nor, of a molecule of three atoms or more, its axes move.
    """
    free = atoms.get_number_of_degrees_of_freedom()
    if not at_rest:
        return free
    turns = not atoms.pbc.any() and len(atoms) > 2
    return free - (rigid_motions(atoms).shape[1] if turns else 3)


def _temperature(kinetic: float, freedom: int) -> float:
    """2 E_kin / (k f) in K; not a number where nothing can move."""
    return 2 * kinetic / (units.kB * freedom) if freedom > 0 else float("nan")


def _row(atoms: Atoms, step: int, timestep: float, freedom: int) -> str:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    fmax = np.linalg.norm(atoms.get_forces(apply_constraint=False), axis=1).max()
    values = [
        step * timestep / 1000,
        potential,
        kinetic,
        potential + kinetic,
        _temperature(kinetic, freedom),
        fmax,
    ]
    for name in ("energy_std", "forces_std"):
        if name in atoms.calc.results:
            values.append(np.max(atoms.calc.results[name]))
    return ",".join([str(step), *(f"{v:.10g}" for v in values)]) + "\n"


def _frame(atoms: Atoms, step: int, timestep: float) -> bytes:
    text = io.StringIO()
    image = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    image.info = {"step": step, "time_ps": step * timestep / 1000}
    image.set_momenta(atoms.get_momenta())
    forces = atoms.get_forces(apply_constraint=False)
    image.calc = SinglePointCalculator(image, energy=atoms.get_potential_energy(), forces=forces)
    write_extxyz(text, [image])
    return text.getvalue().encode()


class _Run:
    """State of one run, on the disk and in memory."""

    def __init__(
        self, atoms: Atoms, dynamics, folder: Folder, interval: int, timestep: float, freedom: int
    ):
        self.atoms, self.dynamics, self.folder = atoms, dynamics, folder
        self.interval, self.timestep, self.freedom = interval, timestep, freedom
        self.step = 0
        self.checkpoint_file = folder / "checkpoint.npz"
        self.rng = getattr(dynamics, "rng", None)

    def open(self) -> None:
        """Continue from the checkpoint, or begin."""
        sizes = {"trajectory": 0, "log": 0}
        there = self.checkpoint_file.exists()
        if there:
            with np.load(self.checkpoint_file) as kept:
                self.step = int(kept["step"])
                self.atoms.positions = kept["positions"]
                self.atoms.set_momenta(kept["momenta"], apply_constraint=False)
                sizes = {name: int(kept[name]) for name in sizes}
                if self.rng is not None:
                    self.rng.bit_generator.state = json.loads(str(kept["rng"]))
            log.info("%s: continues at step %d", self.folder.path, self.step)
        self.trajectory = Growing(self.folder / "trajectory.extxyz", sizes["trajectory"])
        self.log = Growing(self.folder / "log.csv", sizes["log"])
        self.dynamics.nsteps = self.step
        if not there:
            names = list(COLUMNS)
            if len(self.atoms.calc.models) > 1:
                names += ["energy_std_eV", "max_forces_std_eV_A"]
            self.log.write((",".join(names) + "\n").encode())
            self.write()

    def write(self) -> None:
        """A frame and a row of the log."""
        self.trajectory.write(_frame(self.atoms, self.step, self.timestep))
        row = _row(self.atoms, self.step, self.timestep, self.freedom)
        self.log.write(row.encode())

    def checkpoint(self) -> None:
        """Everything that the next step depends on, and how long the files are."""
        trajectory, log = self.trajectory.sync(), self.log.sync()
        state = "" if self.rng is None else json.dumps(self.rng.bit_generator.state)
        with atomic(self.checkpoint_file) as temporary, open(temporary, "wb") as f:
            np.savez(
                f,
                step=self.step,
                positions=self.atoms.positions,
                momenta=self.atoms.get_momenta(),
                rng=np.array(state),
                trajectory=trajectory,
                log=log,
            )

    def close(self) -> None:
        self.trajectory.close()
        self.log.close()


def _start(atoms: Atoms, temperature: float | None, rng) -> None:
    """Velocities of a Boltzmann distribution, at rest as a whole; those given stay without one."""
    if temperature is None:
        return
    thermalize_momenta(atoms, temperature, rng=rng)
    if atoms.constraints:
        return  # what is fixed holds the rest
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any() and len(atoms) > 2:
        with np.errstate(invalid="ignore"):  # a linear molecule does not turn about its axis
            ZeroRotation(atoms, preserve_temperature=False)


def _check(thermostat, temperature, friction, seed, **positive) -> None:
    known_or_nearest(thermostat, THERMOSTATS, "thermostat", "md")
    require_positive("md", **positive)
    if temperature is not None:
        require_positive("md", temperature=temperature)
    elif thermostat == "langevin":
        raise ConfigError("md: the Langevin thermostat needs a temperature")
    if thermostat == "langevin":
        require_positive("md", friction=friction)
    if seed < 0:
        raise ConfigError(f"md: seed: {seed} is negative")


def md(
    atoms: Atoms,
    models,
    output,
    *,
    steps: int,
    timestep: float = 0.5,
    temperature: float | None = 300.0,
    thermostat: str = "langevin",
    friction: float = 0.01,
    interval: int = 20,
    checkpoint: int = 1000,
    seed: int = 0,
    **options,
) -> Atoms:
    """Molecular dynamics of a structure; continues by itself after an interruption.

    The folder gets trajectory.extxyz (positions, momenta, forces and energy every ``interval``
    steps, the first frame included: steps / interval + 1 frames), log.csv and checkpoint.npz. With
    ``thermostat="none"`` the total energy is the conserved quantity (velocity Verlet); Langevin has
    none that ASE would compute.

    Args:
        atoms: the structure; its constraints hold, and its momenta are those to start with where
            ``temperature`` is None.
        models: model files or Models, several are a committee.
        output: folder.
        steps: how many; the only setting that may differ at a restart.
        timestep: in fs.
        temperature: in K, of thermostat and initial velocities.
        thermostat: "langevin", with the centre of mass fixed where nothing else is, or "none".
        friction: of the Langevin thermostat in 1/fs.
        interval: steps between frames.
        checkpoint: steps between checkpoints, rounded up to a multiple of ``interval``.
        seed: of velocities and noise.
        options: of SchNetCalculator: device, threads, engine, skin.

    Returns:
        The last frame, with momenta and calculator.

    Raises:
        ConfigError: a setting makes no sense, or the folder holds a run with other settings.
        DataError: see SchNetCalculator.
        Exploded: positions are not numbers, two atoms are closer than 0.3 Å, or an atom has more
            than 100 times the thermal kinetic energy; the message names step and atom.
    """
    _check(
        thermostat, temperature, friction, seed,
        steps=steps, timestep=timestep, interval=interval, checkpoint=checkpoint,
    )  # fmt: skip
    settings = describe(
        atoms,
        models,
        verb="md",
        timestep=timestep,
        temperature=temperature,
        thermostat=thermostat,
        friction=friction,
        interval=interval,
        seed=seed,
        engine=options.get("engine", "auto"),
    )
    atoms = atoms.copy()
    atoms.calc = SchNetCalculator(models, **options)
    rng = np.random.Generator(np.random.PCG64(seed))
    atoms.get_forces()  # what is refused is refused before anything is written
    folder = Folder(output, settings)
    with folder.locked():
        _start(atoms, temperature, rng)
        at_rest = temperature is not None and not atoms.constraints
        dynamics = _dynamics(atoms, thermostat, timestep, temperature, friction, rng)
        # the Langevin thermostat turns a molecule; what it keeps at rest is a constraint
        freedom = degrees_of_freedom(atoms, at_rest and thermostat == "none")
        run = _Run(atoms, dynamics, folder, interval, timestep, freedom)
        run.open()
        _advance(run, steps, interval * -(-checkpoint // interval), temperature or 0.0)
    return atoms


def _dynamics(atoms: Atoms, thermostat: str, timestep, temperature, friction, rng):
    """ASE's integrator."""
    if thermostat == "langevin":
        if not atoms.constraints:
            atoms.set_constraint(FixCom())
        return Langevin(
            atoms,
            timestep * units.fs,
            temperature_K=temperature,
            friction=friction / units.fs,
            fixcm=False,
            rng=rng,
        )
    return VelocityVerlet(atoms, timestep * units.fs)


def _advance(run: _Run, steps: int, checkpoint: int, temperature: float) -> None:
    """Step until the end, writing frames and checkpoints."""
    if run.step >= steps:
        log.info("%s: all %d steps are done", run.folder.path, run.step)
    progress = Progress(steps, run.step)
    momenta, masses = run.atoms.get_momenta, run.atoms.get_masses()
    try:
        while run.step < steps:
            try:
                run.dynamics.run(1)
            except DataError as error:
                raise Exploded(
                    f"{run.folder.path}: exploded at step {run.step + 1}: {error}; "
                    "what was written is kept"
                ) from error
            run.step += 1
            hot = hottest_atom(momenta(), masses, temperature)
            if hot:
                raise Exploded(
                    f"{run.folder.path}: exploded at step {run.step}: atom {hot[0]} has a kinetic "
                    f"energy of {hot[1]:.3g} eV; what was written is kept"
                )
            if run.step % run.interval == 0:
                run.write()
                progress.to(run.step)
            if run.step % checkpoint == 0 or run.step == steps:
                run.checkpoint()
    finally:
        progress.to(run.step)
        progress.close()
        run.close()
