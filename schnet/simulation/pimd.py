"""Path-integral molecular dynamics with i-PI; a killed run continues with the same trajectory."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from ase import Atoms, units

from schnet.errors import ConfigError, DataError, known_or_nearest
from schnet.files import atomic, write_text
from schnet.hdf5 import atomic_hdf5
from schnet.simulation.folder import (
    Exploded,
    Folder,
    Growing,
    Progress,
    describe,
    require_positive,
)
from schnet.simulation.ipi_input import (
    IPI,
    check_ipi,
    input_xml,
    load,
    registered,
    thermal_momenta,
    with_forces_of,
)
from schnet.simulation.md import HOT, HOT_AT_LEAST
from schnet.simulation.potential import Evaluate, potential

log = logging.getLogger("schnet")

THERMOSTATS = ("pile_l", "pile_g")
#: column of the log -> (property of i-PI, its dimension, unit there)
PROPERTIES = {
    "time_ps": ("time", "time", "picosecond"),
    "conserved_eV": ("conserved", "energy", "electronvolt"),
    "temperature_K": ("temperature", "temperature", "kelvin"),
    "kinetic_cv_eV": ("kinetic_cv", "energy", "electronvolt"),
    "potential_eV": ("potential", "energy", "electronvolt"),
    "kinetic_md_eV": ("kinetic_md", "energy", "electronvolt"),
}


class _Run:
    """One run: i-PI's simulation and the files of the folder."""

    def __init__(self, folder: Folder, atoms: Atoms, settings: dict):
        self.folder, self.atoms, self.settings = folder, atoms, settings
        self.beads, self.interval = settings["beads"], settings["interval"]
        self.restart = folder / "restart.xml"
        self.h5 = folder / "trajectory.h5"
        self.raw = folder / "positions.f4"
        self.step = 0

    def finished(self, steps: int) -> bool:
        """Whether so many steps are done and the trajectory is written."""
        if not (self.h5.exists() and self.restart.exists()):
            return False
        found = re.search(r"<step>\s*(\d+)", self.restart.read_text(encoding="utf-8"))
        return found is not None and int(found[1]) >= steps and not self.raw.exists()

    def open(self, key: str) -> None:
        """Continue from the checkpoint, or begin."""
        if self.restart.exists() and not (self.raw.exists() or self.h5.exists()):
            log.warning("%s: its trajectory is gone; starting anew", self.folder.path)
            self.restart.unlink()
        there = self.restart.exists()
        names = ("timestep", "temperature", "thermostat", "tau", "seed", "beads")
        if there:
            xml = with_forces_of(self.restart.read_text(encoding="utf-8"), key)
        else:
            xml = input_xml(self.atoms, key, **{name: self.settings[name] for name in names})
        self.simulation = load(xml)
        self.system = self.simulation.syslist[0]
        self.masses = self.atoms.get_masses()
        rows = 0
        if there:
            self.step = int(self.simulation.step)
            rows = self.step // self.interval + 1
            log.info("%s: continues at step %d", self.folder.path, self.step)
        else:
            thermal_momenta(self.simulation)
        self._open_files(rows)
        if not there:
            self.write()

    def _open_files(self, rows: int) -> None:
        frame = 12 * self.beads * len(self.atoms)
        there = self.raw.stat().st_size if self.raw.exists() else 0
        if there < rows * frame and self.h5.exists():  # it had ended
            with h5py.File(self.h5) as h5, atomic(self.raw) as temporary:
                temporary.write_bytes(h5["positions"][:].tobytes())
        header = ",".join(["step", *PROPERTIES]) + "\n"
        kept = 0
        path = self.folder / "log.csv"
        if rows:
            lines = path.read_bytes().splitlines(keepends=True)
            kept = sum(map(len, lines[: rows + 1]))
        self.positions = Growing(self.raw, rows * frame)
        self.log = Growing(path, kept)
        if not rows:
            self.log.write(header.encode())

    def write(self) -> None:
        """A frame and a row of the log."""
        from ipi.utils.depend import dstrip
        from ipi.utils.units import unit_to_user

        length = unit_to_user("length", "angstrom", 1.0)
        self.positions.write((dstrip(self.system.beads.q) * length).astype("<f4").tobytes())
        values = [str(self.step)]
        for name, dimension, unit in PROPERTIES.values():
            value = self.system.properties[name][0]
            values.append(f"{float(value) * unit_to_user(dimension, unit, 1.0):.10g}")
        self.log.write((",".join(values) + "\n").encode())

    def checkpoint(self) -> None:
        """Sync the files, then write i-PI's state.

        Numbers are written without loss, but a restart has the beads and makes their normal modes
        anew: that is done here as well, so that both go on with the same bits.
        """
        from ipi.utils.depend import dstrip

        self.positions.sync()
        self.log.sync()
        beads = self.system.beads
        beads.q[:] = dstrip(beads.q).copy()
        beads.p[:] = dstrip(beads.p).copy()
        status = self.simulation.chk.status
        status.store(self.simulation)
        status.step.store(self.step)
        write_text(self.restart, status.write(name="simulation"))

    def check(self) -> None:
        """Raise Exploded where an atom has more kinetic energy than thermal motion explains."""
        from ipi.utils.depend import dstrip

        beads = self.system.beads
        p = dstrip(beads.p)
        kinetic = 0.5 * p * p / dstrip(beads.m3)
        limit = HOT * 1.5 * units.kB / units.Hartree * self.beads  # for each K
        if kinetic.max() < limit * max(self.settings["temperature"], HOT_AT_LEAST):
            return
        atom = int(np.argmax(kinetic.max(0))) // 3
        raise Exploded(
            f"{self.folder.path}: exploded at step {self.step}: atom {atom} is too fast; "
            "what was written is kept"
        )

    def advance(self, steps: int, checkpoint: int) -> None:
        """Step until the end, writing frames and checkpoints."""
        if self.step >= steps:
            log.info("%s: all %d steps are done", self.folder.path, self.step)
        progress = Progress(steps, self.step)
        try:
            while self.step < steps:
                try:
                    self.simulation.run_step(self.step)
                except DataError as error:
                    raise Exploded(
                        f"{self.folder.path}: exploded at step {self.step + 1}: {error}; "
                        "what was written is kept"
                    ) from error
                self.step += 1
                self.check()
                if self.step % self.interval == 0:
                    self.write()
                    progress.to(self.step)
                if self.step % checkpoint == 0 or self.step == steps:
                    self.checkpoint()
        finally:
            progress.to(self.step)
            progress.close()
            self.positions.close()
            self.log.close()

    def finish(self) -> None:
        """Turn the raw positions into trajectory.h5."""
        self.save(self.h5)
        self.raw.unlink()

    def save(self, file: Path) -> None:
        """Write positions and log so far into an HDF5 file."""
        frames = np.fromfile(self.raw, "<f4").reshape(-1, self.beads, len(self.atoms), 3)
        with atomic_hdf5(file) as h5:
            h5.create_dataset(
                "positions",
                data=frames,
                chunks=(max(1, min(64, len(frames))), *frames.shape[1:]),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            h5["numbers"], h5["masses"] = self.atoms.numbers, self.masses
            h5["cell"], h5["pbc"] = self.atoms.cell.array, self.atoms.pbc
            table = pd.read_csv(self.folder / "log.csv")
            for name in table.columns:
                h5[f"log/{name}"] = table[name].to_numpy()
            h5.attrs["ipi"] = IPI
            for name in ("beads", "timestep", "temperature", "thermostat", "tau", "interval"):
                h5.attrs[name] = self.settings[name]


def _check(atoms: Atoms, thermostat: str, **positive) -> None:
    known_or_nearest(thermostat, THERMOSTATS, "thermostat", "pimd")
    require_positive("pimd", **positive)
    if atoms.constraints:
        raise ConfigError(
            "pimd: the structure has constraints, which i-PI would not heed; remove them "
            "(atoms.set_constraint()), or use md"
        )


def pimd(
    atoms: Atoms,
    models,
    output,
    *,
    beads: int = 8,
    steps: int,
    timestep: float = 0.5,
    temperature: float = 300.0,
    thermostat: str = "pile_l",
    tau: float = 100.0,
    interval: int = 100,
    checkpoint: int = 5000,
    seed: int = 0,
    **options,
) -> Path:
    """Path-integral molecular dynamics of a structure with i-PI; continues after an interruption.

    i-PI moves the beads (NVT, BAOAB splitting, PILE thermostat) and asks for the forces on all of
    them in one call, without sockets or threads. One bead is classical dynamics with the same
    thermostat. The folder gets trajectory.h5 at the end (positions in float32, frames × beads ×
    atoms × 3, every ``interval`` steps: 12 bytes per atom, bead and frame before compression),
    log.csv and restart.xml, i-PI's own checkpoint. A trajectory that explodes is kept in
    exploded.h5 instead.

    Args:
        atoms: the structure; momenta are drawn anew.
        models: model files or Models (a committee: the mean), an ASE calculator, or a function of
            positions [P, n, 3] in Å that gives energies [P] in eV and forces [P, n, 3] in eV/Å.
        output: folder.
        beads: P.
        steps: how many; the only setting that may differ at a restart.
        timestep: in fs.
        temperature: in K.
        thermostat: "pile_l" (Langevin on the centroid) or "pile_g" (global velocity rescaling).
        tau: time constant of the centroid's thermostat in fs; the other modes have the critical one
            (M. Ceriotti et al., J. Chem. Phys. 133, 124104).
        interval: steps between frames.
        checkpoint: steps between checkpoints, rounded up to a multiple of ``interval``.
        seed: of momenta and noise.
        options: of ``Potential``: device, threads, engine, skin.

    Returns:
        Path of trajectory.h5.

    Raises:
        ConfigError: i-PI is missing or unfitting, the structure has constraints, or the folder
            holds a run with other settings.
        DataError: see ``Potential``.
        Exploded: see ``md``.
    """
    check_ipi()
    _check(
        atoms, thermostat, beads=beads, steps=steps, timestep=timestep, temperature=temperature,
        tau=tau, interval=interval, checkpoint=checkpoint,
    )  # fmt: skip
    checkpoint = interval * -(-checkpoint // interval)
    # the checkpoint interval is among the settings: each renews the normal modes, to the last bit
    settings = describe(
        atoms, models, verb="pimd", beads=beads, timestep=timestep, temperature=temperature,
        thermostat=thermostat, tau=tau, interval=interval, checkpoint=checkpoint, seed=seed,
        engine=options.get("engine", "auto"),
    )  # fmt: skip
    evaluate = potential(models, atoms, beads, **options)
    evaluate(np.tile(atoms.positions, (beads, 1, 1)))  # refused before anything is written
    folder = Folder(output, settings)
    with folder.locked():
        return _complete(_Run(folder, atoms, settings), evaluate, steps, checkpoint)


def _complete(run: _Run, evaluate: Evaluate, steps: int, checkpoint: int) -> Path:
    """From where the run is to its end."""
    if run.finished(steps):
        log.info("%s: all %d steps are done", run.folder.path, steps)
        return run.h5
    with registered(evaluate) as key:
        try:
            run.open(key)
            run.advance(steps, checkpoint)
        except Exploded:
            run.save(run.folder / "exploded.h5")
            raise
    run.finish()
    return run.h5
