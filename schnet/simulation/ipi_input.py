"""What i-PI is given: its input, the momenta at the start, and who computes its forces."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ase import Atoms

from schnet.errors import ConfigError
from schnet.simulation.potential import Evaluate

IPI = "3.3.1"  # the release that this was written for; others of 3.3 may do
PES = Path(__file__).with_name("ipi_pes.py")  # the module that i-PI loads for its forces
FOREVER = 10**9  # steps that i-PI is told to do; the loop of `pimd` ends earlier

#: what the module ipi_pes, which i-PI loads as a file, finds its work in
evaluators: dict[str, Evaluate] = {}
_keys = itertools.count()


@contextmanager
def registered(evaluate: Evaluate) -> Iterator[str]:
    """A key that i-PI's forces are found by while the context lasts."""
    key = f"run{next(_keys)}"
    evaluators[key] = evaluate
    try:
        yield key
    finally:
        del evaluators[key]


def check_ipi() -> None:
    """Raise ConfigError unless a fitting i-PI is installed."""
    mend = f"pip install ipi=={IPI}"
    try:
        from ipi._version import __version__
    except ImportError as error:
        raise ConfigError(f"pimd: i-PI is not installed; {mend}") from error
    if __version__.split(".")[:2] != IPI.split(".")[:2]:
        raise ConfigError(f"pimd: i-PI {__version__} is installed, {IPI} is needed; {mend}")


def _numbers(values) -> str:
    """An array as i-PI reads it, without loss."""
    return "[" + ", ".join(repr(float(v)) for v in np.ravel(values)) + "]"


def input_xml(
    atoms: Atoms,
    key: str,
    *,
    beads: int,
    timestep: float,
    temperature: float,
    thermostat: str = "pile_l",
    tau: float = 100.0,
    seed: int = 0,
) -> str:
    """i-PI's input: all beads at the same place, at rest.

    BAOAB splitting thermostats once per step instead of twice, and the centre of mass moves like
    the rest: a third less work in i-PI than with its defaults.

    Args:
        atoms: the structure.
        key: of ``evaluators``.
        beads, timestep, temperature, thermostat, tau, seed: see ``pimd``.
    """
    from ipi.utils.units import unit_to_internal

    n = len(atoms)
    angstrom = unit_to_internal("length", "angstrom", 1.0)
    cell = 1000.0 * np.eye(3)  # i-PI does nothing with it: periodicity is the potential's affair
    masses = atoms.get_masses() * unit_to_internal("mass", "dalton", 1.0)
    q = np.tile(atoms.positions.ravel(), beads) * angstrom
    return f"""<simulation verbosity='quiet' threading='False' floatformat='%.17e'>
  <output prefix='unused'></output>
  <total_steps>{FOREVER}</total_steps>
  <prng><seed>{seed}</seed></prng>
  <ffdirect name='schnet' threaded='False' pbc='False'>
    <pes>custom</pes>
    <pes_path>{PES}</pes_path>
    <batch_size>{beads}</batch_size>
    <parameters>{{key: {key}}}</parameters>
  </ffdirect>
  <system>
    <beads natoms='{n}' nbeads='{beads}'>
      <q shape='({beads}, {3 * n})'>{_numbers(q)}</q>
      <p shape='({beads}, {3 * n})'>{_numbers(np.zeros_like(q))}</p>
      <m shape='({n})'>{_numbers(masses)}</m>
      <names shape='({n})'>[{", ".join(atoms.symbols)}]</names>
    </beads>
    <cell shape='(3, 3)'>{_numbers(cell * angstrom)}</cell>
    <forces><force forcefield='schnet'/></forces>
    <ensemble><temperature units='kelvin'>{temperature}</temperature></ensemble>
    <normal_modes/>
    <motion mode='dynamics'>
      <fixcom>False</fixcom>
      <dynamics mode='nvt' splitting='baoab'>
        <timestep units='femtosecond'>{timestep}</timestep>
        <thermostat mode='{thermostat}'><tau units='femtosecond'>{tau}</tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>"""


def with_forces_of(restart: str, key: str) -> str:
    """A restart file whose forces are computed by this installation, under a new key."""
    restart = re.sub(r"(?<=<pes_path>).*?(?=</pes_path>)", f" {PES} ", restart)
    return re.sub(r"(?<=<parameters>).*?(?=</parameters>)", f"{{key: {key}}}", restart)


def load(xml: str):
    """i-PI's simulation, without its handlers of signals and files."""
    from ipi.engine.simulation import Simulation
    from ipi.utils.softexit import softexit

    simulation = Simulation.load_from_xml(xml)
    softexit.reset()
    return simulation


def thermal_momenta(simulation) -> None:
    """Momenta of a Boltzmann distribution at P times the temperature, in normal modes."""
    from ipi.utils.depend import dstrip
    from ipi.utils.units import Constants

    system = simulation.syslist[0]
    beads, nm = system.beads, system.nm
    kT = Constants.kb * system.ensemble.temp * beads.nbeads
    noise = simulation.prng.gvec((beads.nbeads, 3 * beads.natoms))
    nm.pnm[:] = noise * np.sqrt(dstrip(nm.dynm3) * kT)
