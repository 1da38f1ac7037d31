"""Small organic molecules in the files of QM9: geometry, orbitals, response, vibrations, thermochemistry."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from ase import units
from ase.build import molecule
from ase.data import chemical_symbols, covalent_radii

from schnet.files import atomic, write_text
from schnet.reference import build, processes, xtb

TEMPERATURE = 298.15
CAL = 4.184  # J
DEBYE = 2.541746473  # per atomic unit of dipole moment
SCAFFOLDS = (
    "CH4", "NH3", "H2O", "C2H6", "C2H4", "C2H2", "HCN", "H2CO", "CH3OH", "CH3NH2", "CH3CN", "C3H8", "CH3CHO", "HCONH2", "HCOOH",
    "CH3OCH3", "C3H6_D3h", "C3H4_C2v", "CH3COOH", "CH3CONH2", "C4H4O", "C4H4NH", "CH3CH2OH", "CH3COCH3", "C2H6NH", "CH2NHCH2",
    "C5H5N", "C6H6", "trans-butane", "isobutane", "butadiene", "CH3COF", "HCOOCH3", "C2H3", "CH2OCH2", "methylenecyclopropane", "cyclobutane", "cyclobutene",
)  # fmt: skip
MAX_HEAVY = 7


def candidates(count: int, seed: int):
    """``count`` start geometries of distinct molecules from CHONF with at most MAX_HEAVY heavy atoms."""
    rng = np.random.default_rng(seed)
    pool, seen = [], set()

    def add(atoms):
        if len(atoms) < 3 or (atoms.numbers > 1).sum() > MAX_HEAVY or atoms.numbers.sum() % 2 or not build.connected(atoms):
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
            add(build.substitute(parent, int(rng.choice(hydrogens)), groups[rng.integers(len(groups))]))
    return pool[:count]


def _thermo(energies: np.ndarray, atoms, energy: float, linear: bool) -> dict:
    """U0, U, H, G (eV) and Cv (cal/mol K) of an ideal gas with the given vibrational energies (eV)."""
    from ase.thermochemistry import IdealGasThermo

    kt = units.kB * TEMPERATURE
    x = energies / kt
    rigid = 2.5 if linear else 3.0  # translation and rotation, in k
    zpve = 0.5 * energies.sum()
    u = energy + zpve + rigid * kt + (energies / np.expm1(x)).sum()
    gas = IdealGasThermo(energies, "linear" if linear else "nonlinear", potentialenergy=energy, atoms=atoms, symmetrynumber=1, spin=0)
    g = gas.get_gibbs_energy(TEMPERATURE, 101325.0, verbose=False)
    cv = (rigid + (x**2 * np.exp(x) / np.expm1(x) ** 2).sum()) * units.kB * units.mol / units.kJ * 1000 / CAL
    return {"zpve": zpve, "U0": energy + zpve, "U": u, "H": u + kt, "G": g, "Cv": cv}


def characterize(task):
    """(text of a QM9 file, consistent?) of one molecule; None when GFN2-xTB gives up on it."""
    number, atoms, relaxed = task
    try:
        graph = build.fingerprint(atoms)
        ok = xtb.relax(atoms) if relaxed else False
        if not relaxed:
            atoms.calc = xtb.XTB()
        ok = ok and build.fingerprint(atoms) == graph
        energy = atoms.get_potential_energy()
        bohr = atoms.positions / xtb.BOHR_ANGSTROM
        result = atoms.calc._result
        charges = np.asarray(result.get("charges"))
        levels, occupation = np.asarray(result.get("orbital-energies")), np.asarray(result.get("orbital-occupations"))
        homo, lumo = levels[occupation > 0.5].max(), levels[occupation <= 0.5].min()
        dipole = np.linalg.norm(np.asarray(result.get("dipole")))
        alpha = xtb.polarizability(atoms.numbers, bohr)
        masses = atoms.get_masses()
        h = xtb.hessian(atoms) / np.sqrt(np.repeat(masses, 3)[:, None] * np.repeat(masses, 3))
        moments = np.sort(atoms.get_moments_of_inertia())
        linear = moments[0] < 1e-2
        scale = units._hbar * 1e10 / np.sqrt(units._e * units._amu)  # sqrt(eV/Å²/amu) -> eV
        modes = np.linalg.eigvalsh(h)
        keep = 3 * len(atoms) - (5 if linear else 6)
        modes = modes[np.argsort(np.abs(modes))][-keep:]
        vibrations = np.sort(np.sqrt(np.clip(modes, 0, None)) * scale)
        ok = ok and modes.min() > 0
        vibrations = np.maximum(vibrations, 1e-3)
        thermo = _thermo(vibrations, atoms, energy, linear)
    except Exception as error:  # one failing molecule of hundreds is no reason to stop
        return number, None, f"{type(error).__name__}: {error}"
    centre = atoms.get_center_of_mass() / xtb.BOHR_ANGSTROM
    shell = (covalent_radii[atoms.numbers] / xtb.BOHR_ANGSTROM) ** 2
    r2 = ((atoms.numbers - charges) * (((bohr - centre) ** 2).sum(1) + shell)).sum()
    rotation = [0.0 if m < 1e-2 else units._hplanck / (8 * np.pi**2 * m * units._amu * 1e-20) / 1e9 for m in moments]
    ha = 1 / xtb.HARTREE_EV
    values = [
        *rotation, dipole * DEBYE, alpha, homo, lumo, lumo - homo, r2, thermo["zpve"] * ha,
        thermo["U0"] * ha, thermo["U"] * ha, thermo["H"] * ha, thermo["G"] * ha, thermo["Cv"],
    ]  # fmt: skip
    lines = [
        str(len(atoms)),
        f"gdb {number}\t" + "\t".join(f"{v:.7g}" if k not in (10, 11, 12, 13, 9) else f"{v:.8f}" for k, v in enumerate(values)) + "\t",
    ]
    for symbol, r, q in zip(atoms.get_chemical_symbols(), atoms.positions, charges, strict=True):
        lines.append(f"{symbol}\t" + "\t".join(_mathematica(x) for x in r) + f"\t{_mathematica(q)}")
    lines.append("\t".join(f"{v * 8065.544:.4f}" for v in vibrations))
    formula = atoms.get_chemical_formula()
    lines += [f"{formula}\t{formula}", f"{formula}\t{formula}"]
    return number, "\n".join(lines) + "\n", "" if ok else "not a minimum, or another molecule after relaxation"


def _mathematica(x: float) -> str:
    """Numbers as QM9 writes them: 1.2*^-6 for small ones."""
    return f"{x:.10f}" if abs(x) >= 1e-5 or x == 0 else f"{x:.4e}".replace("e-0", "*^-").replace("e-", "*^-")


def _atomrefs() -> str:
    lines = [
        "Ref. energies of elements",
        "=" * 80,
        "Element    ZPVE         U (0 K)      U (298.15 K)    H (298.15 K)    G (298.15 K)     CV",
        "=" * 80,
    ]
    kt = units.kB * TEMPERATURE / xtb.HARTREE_EV
    for z, uhf in ((1, 1), (6, 2), (7, 3), (8, 2), (9, 1)):
        e = float(xtb.single_point([z], [[0.0, 0, 0]], uhf=uhf).singlepoint().get("energy"))
        lines.append(f"{chemical_symbols[z]}  0.000000  {e:.6f}  {e + 1.5 * kt:.6f}  {e + 2.5 * kt:.6f}  {e + 2.5 * kt - 0.01:.6f}  2.981")
    return "\n".join(lines) + "\n"


def make(dataset: str, folder, *, workers: int, molecules: int = 360, seed: int = 0):
    """Write dsgdb9nsd.xyz.tar.bz2, uncharacterized.txt and atomref.txt; the last molecule is left unrelaxed on purpose."""
    folder = Path(folder)
    start = candidates(molecules, seed)
    tasks = [(k + 1, atoms, k + 1 < len(start)) for k, atoms in enumerate(start)]
    with processes(workers) as pool:
        results = list(pool.map(characterize, tasks, chunksize=4))
    archive = folder / "dsgdb9nsd.xyz.tar.bz2"
    rejected = []
    with atomic(archive) as temporary, tarfile.open(temporary, "w:bz2") as tar:
        for number, text, problem in results:
            if text is None:
                continue
            info = tarfile.TarInfo(f"dsgdb9nsd_{number:06d}.xyz")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
            if problem:
                rejected.append((number, problem))
    text = "Molecules that are no relaxed minimum (the last one is left unrelaxed on purpose)\n" + "=" * 80 + "\n"
    text += "".join(f"{number:8d}   {problem}\n" for number, problem in rejected)
    write_text(folder / "uncharacterized.txt", text)
    write_text(folder / "atomref.txt", _atomrefs())
    return "made here: GFN2-xTB (tblite)", [archive, folder / "uncharacterized.txt", folder / "atomref.txt"]
