"""Small organic molecules in the files of QM9.

Geometry, orbitals, response, vibrations and thermochemistry by GFN2-xTB.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.data import chemical_symbols, covalent_radii

from schnet.files import atomic, write_text
from schnet.reference import build, processes, xtb

TEMPERATURE = 298.15  # K
CAL = 4.184  # J
DEBYE = 2.541746473  # per atomic unit of dipole moment
#: names in ASE's g2 collection
SCAFFOLDS = (
    "CH4", "NH3", "H2O", "C2H6", "C2H4", "C2H2", "HCN", "H2CO", "CH3OH", "CH3NH2", "CH3CN", "C3H8",
    "CH3CHO", "HCONH2", "HCOOH", "CH3OCH3", "C3H6_D3h", "C3H4_C2v", "CH3COOH", "CH3CONH2", "C4H4O",
    "C4H4NH", "CH3CH2OH", "CH3COCH3", "C2H6NH", "CH2NHCH2", "C5H5N", "C6H6", "trans-butane",
    "isobutane", "butadiene", "CH3COF", "HCOOCH3", "C2H3", "CH2OCH2", "methylenecyclopropane",
    "cyclobutane", "cyclobutene",
)  # fmt: skip
MAX_HEAVY = 7


def _fits(atoms: Atoms) -> bool:
    """Whether a start geometry is one connected closed-shell molecule of the right size."""
    heavy = (atoms.numbers > 1).sum()
    if len(atoms) < 3 or heavy > MAX_HEAVY or atoms.numbers.sum() % 2:
        return False
    return build.connected(atoms)


def candidates(count: int, seed: int) -> list[Atoms]:
    """Start geometries of distinct molecules from CHONF with at most MAX_HEAVY heavy atoms.

    Args:
        count: how many; fewer come back when groups cannot be attached any more.
        seed: of the choice of groups and places.
    """
    rng = np.random.default_rng(seed)
    pool: list[Atoms] = []
    seen = set()

    def add(atoms: Atoms) -> None:
        if not _fits(atoms):
            return
        key = tuple(sorted(atoms.numbers)), build.fingerprint(atoms)
        if key not in seen:
            seen.add(key)
            pool.append(atoms)

    for name in SCAFFOLDS:
        try:
            add(molecule(name))
        except KeyError:
            continue
    groups = sorted(build.GROUPS)
    for _ in range(60 * count):
        if len(pool) >= count:
            break
        parent = pool[rng.integers(len(pool))]
        hydrogens = np.flatnonzero(parent.numbers == 1)
        if len(hydrogens):
            place = int(rng.choice(hydrogens))
            add(build.substitute(parent, place, groups[rng.integers(len(groups))]))
    return pool[:count]


def vibrational_energies(atoms: Atoms, linear: bool) -> tuple[np.ndarray, bool]:
    """Energies ħω of the normal modes, from the Hessian of GFN2-xTB.

    Args:
        atoms: a molecule with a calculator.
        linear: whether it has five instead of six translations and rotations.

    Returns:
        Energies in eV in ascending order, imaginary modes as zero, and whether there are none
        (a minimum).
    """
    masses = np.repeat(atoms.get_masses(), 3)
    h = xtb.hessian(atoms) / np.sqrt(masses[:, None] * masses)
    modes = np.linalg.eigvalsh(h)  # ω² in eV/Å²/amu
    keep = 3 * len(atoms) - (5 if linear else 6)
    modes = modes[np.argsort(np.abs(modes))][-keep:]
    scale = units._hbar * 1e10 / np.sqrt(units._e * units._amu)  # sqrt(eV/Å²/amu) -> eV
    return np.sort(np.sqrt(np.clip(modes, 0, None)) * scale), bool(modes.min() > 0)


def thermochemistry(
    energies: np.ndarray, atoms: Atoms, energy: float, linear: bool
) -> dict[str, float]:
    """Ideal gas of rigid rotors and harmonic oscillators at TEMPERATURE and 101,325 Pa.

    Args:
        energies: of the vibrations, eV.
        atoms: the molecule.
        energy: its electronic energy, eV.
        linear: whether it is linear.

    Returns:
        zpve, U0, U, H and G in eV, Cv in cal/mol K.
    """
    from ase.thermochemistry import IdealGasThermo

    kt = units.kB * TEMPERATURE
    x = energies / kt
    rigid = 2.5 if linear else 3.0  # translation and rotation, in k
    zpve = 0.5 * energies.sum()
    u = energy + zpve + rigid * kt + (energies / np.expm1(x)).sum()
    gas = IdealGasThermo(
        energies.tolist(),
        "linear" if linear else "nonlinear",
        potentialenergy=energy,
        atoms=atoms,
        symmetrynumber=1,
        spin=0,
    )
    g = gas.get_gibbs_energy(TEMPERATURE, 101325.0, verbose=False)
    cv = rigid + (x**2 * np.exp(x) / np.expm1(x) ** 2).sum()  # in k
    cv = cv * units.kB * units.mol / units.kJ * 1000 / CAL
    return {"zpve": zpve, "U0": energy + zpve, "U": u, "H": u + kt, "G": g, "Cv": cv}


def electronic_extent(atoms: Atoms, charges: np.ndarray) -> float:
    """⟨R²⟩ in Bohr² of spherical atoms with the given charges [n]; stands in for the true one."""
    positions = atoms.positions / xtb.BOHR_ANGSTROM
    centre = atoms.get_center_of_mass() / xtb.BOHR_ANGSTROM
    shell = (covalent_radii[atoms.numbers] / xtb.BOHR_ANGSTROM) ** 2
    return ((atoms.numbers - charges) * (((positions - centre) ** 2).sum(1) + shell)).sum()


def _rotational_constant(moment: float) -> float:
    """In GHz, of a moment of inertia in amu Å²; zero about the axis of a linear molecule."""
    if moment < 1e-2:
        return 0.0
    return units._hplanck / (8 * np.pi**2 * moment * units._amu * 1e-20) / 1e9


def characterize(task) -> tuple[int, str | None, str]:
    """The QM9 file of one molecule.

    Args:
        task: number of the molecule, its start geometry, and whether to relax it.

    Returns:
        The number, the text of the file (None when GFN2-xTB gives up on it), and why the molecule
        would be uncharacterized upstream (empty when it is a minimum of the intended graph).
    """
    number, atoms, relaxed = task
    try:
        graph = build.fingerprint(atoms)
        ok = xtb.relax(atoms) if relaxed else False
        if not relaxed:
            atoms.calc = xtb.XTB()
        ok = ok and build.fingerprint(atoms) == graph
        energy = atoms.get_potential_energy()
        result = atoms.calc._result
        charges = np.asarray(result.get("charges"))
        levels = np.asarray(result.get("orbital-energies"))
        occupied = np.asarray(result.get("orbital-occupations")) > 0.5
        homo, lumo = levels[occupied].max(), levels[~occupied].min()
        dipole = np.linalg.norm(np.asarray(result.get("dipole")))
        alpha = xtb.polarizability(atoms.numbers, atoms.positions / xtb.BOHR_ANGSTROM)
        moments = np.sort(atoms.get_moments_of_inertia())
        linear = moments[0] < 1e-2
        vibrations, minimum = vibrational_energies(atoms, linear)
        vibrations = np.maximum(vibrations, 1e-3)
        thermo = thermochemistry(vibrations, atoms, energy, linear)
    except Exception as error:  # one failing molecule of hundreds is no reason to stop
        return number, None, f"{type(error).__name__}: {error}"
    values = {
        **dict(zip("ABC", map(_rotational_constant, moments), strict=True)),
        "mu": dipole * DEBYE,
        "alpha": alpha,
        "homo": homo,
        "lumo": lumo,
        "gap": lumo - homo,
        "r2": electronic_extent(atoms, charges),
        **{key: thermo[key] / xtb.HARTREE_EV for key in ("zpve", "U0", "U", "H", "G")},
        "Cv": thermo["Cv"],
    }
    text = _file(number, atoms, values, charges, vibrations)
    if ok and minimum:
        return number, text, ""
    return number, text, "not a minimum, or another molecule after relaxation"


def _file(number: int, atoms: Atoms, values: dict, charges, vibrations) -> str:
    """A molecule in the layout of QM9; ``values`` in its order and units."""
    precise = ("zpve", "U0", "U", "H", "G")
    header = [f"{v:.8f}" if key in precise else f"{v:.7g}" for key, v in values.items()]
    lines = [str(len(atoms)), f"gdb {number}\t" + "\t".join(header) + "\t"]
    for symbol, r, q in zip(atoms.get_chemical_symbols(), atoms.positions, charges, strict=True):
        words = [symbol, *(_mathematica(x) for x in r), _mathematica(q)]
        lines.append("\t".join(words))
    lines.append("\t".join(f"{v * 8065.544:.4f}" for v in vibrations))  # eV -> 1/cm
    formula = atoms.get_chemical_formula()
    lines += [f"{formula}\t{formula}", f"{formula}\t{formula}"]
    return "\n".join(lines) + "\n"


def _mathematica(x: float) -> str:
    """Numbers as QM9 writes them: 1.2*^-6 for small ones."""
    if abs(x) >= 1e-5 or x == 0:
        return f"{x:.10f}"
    return f"{x:.4e}".replace("e-0", "*^-").replace("e-", "*^-")


def _atomrefs() -> str:
    """atomref.txt: single atoms in Hartree, the thermal part of an ideal gas added."""
    lines = [
        "Ref. energies of elements",
        "=" * 80,
        "Element    ZPVE         U (0 K)      U (298.15 K)    H (298.15 K)    G (298.15 K)     CV",
        "=" * 80,
    ]
    kt = units.kB * TEMPERATURE / xtb.HARTREE_EV
    for z, unpaired in ((1, 1), (6, 2), (7, 3), (8, 2), (9, 1)):
        atom = xtb.single_point([z], [[0.0, 0, 0]], uhf=unpaired)
        e = float(atom.singlepoint().get("energy"))
        energies = (0.0, e, e + 1.5 * kt, e + 2.5 * kt, e + 2.5 * kt - 0.01)
        columns = "  ".join(f"{value:.6f}" for value in energies)
        lines.append(f"{chemical_symbols[z]}  {columns}  2.981")
    return "\n".join(lines) + "\n"


def make(
    dataset: str, folder, *, workers: int, molecules: int = 360, seed: int = 0
) -> tuple[str, list[Path]]:
    """Write dsgdb9nsd.xyz.tar.bz2, uncharacterized.txt and atomref.txt.

    The last molecule is left unrelaxed on purpose, so that there is an uncharacterized one.

    Args:
        dataset: not used.
        folder: where the files go.
        workers: processes.
        molecules: how many.
        seed: of the start geometries.

    Returns:
        How the files were made, and the files.
    """
    folder = Path(folder)
    start = candidates(molecules, seed)
    tasks = [(k + 1, atoms, k + 1 < len(start)) for k, atoms in enumerate(start)]
    with processes(workers) as pool:
        results = list(pool.map(characterize, tasks, chunksize=4))
    archive = folder / "dsgdb9nsd.xyz.tar.bz2"
    rejected = [
        "Molecules that are no relaxed minimum (the last one is left unrelaxed on purpose)",
        "=" * 80,
    ]
    with atomic(archive) as temporary, tarfile.open(temporary, "w:bz2") as tar:
        for number, text, problem in results:
            if text is None:
                continue
            info = tarfile.TarInfo(f"dsgdb9nsd_{number:06d}.xyz")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
            if problem:
                rejected.append(f"{number:8d}   {problem}")
    listed, atomrefs = folder / "uncharacterized.txt", folder / "atomref.txt"
    write_text(listed, "\n".join(rejected) + "\n")
    write_text(atomrefs, _atomrefs())
    return "made here: GFN2-xTB (tblite)", [archive, listed, atomrefs]
