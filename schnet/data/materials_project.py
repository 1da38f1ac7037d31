"""Formation energies of bulk crystals from the Materials Project.

Jain et al., APL Mater. 1, 011002 (2013). Two sources: the frozen ``mp.2018.6.1.json.zip`` (Chen
et al., Chem. Mater. 31, 3564, 2019; the closest public snapshot to the paper's 69,640 crystals) and
the live database (materials_project_live.py).
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from schnet.data.census import Census
from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError, first_line

PROPERTIES = {"formation_energy_per_atom": Property("eV/atom", "formation energy per atom")}
FROZEN, LIVE = "mp.2018.6.1.json.zip", "materials_project_live.jsonl"
FIELDS = ["material_id", "structure", "formation_energy_per_atom"]

CELL = [f"_cell_{what}" for what in ("length_a", "length_b", "length_c")]
CELL += [f"_cell_{what}" for what in ("angle_alpha", "angle_beta", "angle_gamma")]
SITE = ["type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"]


def parse_cif(text: str, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a CIF text: the published file's kind by gemmi, any other by ase (15 times as slow).

    Returns: atomic numbers [n], positions [n, 3] in Å, cell [3, 3] in Å (rows are lattice vectors).

    Raises:
        DataError: naming ``where``, when the text cannot be read.
    """
    from ase import Atoms
    from ase.io import read

    found = _parse_p1(text)
    if found is not None:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Wrong number")  # ase leaves out the atom
            atoms = read(io.StringIO(text), format="cif")
    except Exception as error:
        raise DataError(
            f"{where}: CIF text cannot be read ({type(error).__name__}: {first_line(error)})"
        ) from error
    assert isinstance(atoms, Atoms)  # one image, not a list of them
    return atoms.numbers, atoms.positions, atoms.cell.array


def _parse_p1(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What `parse_cif` returns, for a text with all atoms of the cell; None for any other.

    The arithmetic is that of ase.io.cif, and so are the last bits: Python's numbers, fractional
    coordinates that go to Cartesian ones and back before they are wrapped.
    """
    import gemmi
    from ase.cell import Cell

    try:
        block = gemmi.cif.read_string(text).sole_block()
        operations = list(block.find_values("_symmetry_equiv_pos_as_xyz"))
        if [gemmi.cif.as_string(o) for o in operations] != ["x, y, z"]:
            return None
        rows = [list(row) for row in block.find("_atom_site_", SITE)]
        if not rows or any(float(row[4]) != 1 for row in rows):
            return None
        cell = Cell.new([float(block.find_value(tag)) for tag in CELL])
        fractional = np.array([[float(x) for x in row[1:4]] for row in rows])
        z = np.array([atomic_numbers[row[0]] for row in rows])
        fractional = cell.scaled_positions(cell.cartesian_positions(fractional)) % 1.0
    except (ValueError, TypeError, KeyError, RuntimeError, np.linalg.LinAlgError):
        return None  # whatever it is, ase knows or says what is wrong
    return z, cell.cartesian_positions(fractional), cell.array


def _json_list(stream, where) -> Iterator:
    """Items of a JSON list, one at a time, without reading the whole text."""
    decoder, text, end = json.JSONDecoder(), "", False
    started = False
    while True:
        text = text.lstrip(" \n\r\t,")
        if not started and text.startswith("["):
            started, text = True, text[1:]
            continue
        if started and text.startswith("]"):
            return
        try:
            if not started:
                raise ValueError("not a list") if end or text else json.JSONDecodeError("", "", 0)
            item, at = decoder.raw_decode(text)
            yield item
            text = text[at:]
        except ValueError as error:
            piece = stream.read(1 << 22)
            if not piece:
                raise DataError(
                    f"{where}: JSON text damaged or cut off ({error}); delete it and fetch again"
                ) from error
            text += piece


def _record_of(item: dict) -> tuple[str, str, float | None]:
    """(material_id, CIF text, formation energy per atom in eV) of one entry of a file."""
    material, structure, energy = (item[field] for field in FIELDS)
    if not isinstance(material, str) or not isinstance(structure, str):
        raise TypeError("material_id and structure must be texts")
    return material, structure, None if energy is None else float(energy)


def records(path) -> Iterator[tuple[str, str, float | None]]:
    """(material_id, CIF text, formation energy per atom in eV) of a frozen or live file, in turn.

    Raises:
        DataError: the file is damaged, or an entry lacks one of FIELDS.
    """
    path = Path(path)
    try:
        if path.suffix == ".jsonl":
            with open(path, encoding="utf-8") as f:
                for line in f:
                    yield _record_of(json.loads(line))
            return
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".json")]
            if len(names) != 1:
                raise DataError(f"{path}: one .json member expected, found {len(names)}")
            with archive.open(names[0]) as raw:
                for item in _json_list(io.TextIOWrapper(raw, "utf-8"), path):
                    yield _record_of(item)
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError) as error:
        raise DataError(
            f"{path}: archive damaged or cut off ({error}); delete it and fetch again"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        wanted = ", ".join(FIELDS)
        raise DataError(f"{path}: an entry lacks {wanted} ({first_line(error)})") from error


def source_file(raw, sources: list[dict]) -> Path:
    """The raw file that the records of the last fetch name.

    What else lies in the folder (a live file beside a frozen one) does not count. Without records,
    for files placed there by hand, the only one of the two is taken.

    Args:
        raw: the folder of raw files.
        sources: the records of sources.json, perhaps none.

    Raises:
        DataError: the file is missing, or it is not known which of the two is meant.
    """
    raw = Path(raw)
    named = [name for name in (LIVE, FROZEN) if any(s.get("file") == name for s in sources)]
    if not named:
        named = [name for name in (LIVE, FROZEN) if (raw / name).exists()]
    if not named:
        raise DataError(f"{raw}: neither {LIVE} nor {FROZEN}")
    if len(named) > 1:
        raise DataError(
            f"{raw}: both {LIVE} and {FROZEN}, and no sources.json that says which; "
            "run `schnet data fetch` again or delete one"
        )
    path = raw / named[0]
    if not path.exists():
        raise DataError(f"{path}: named in sources.json and missing; fetch it again")
    return path


def reduced_formula(atomic_numbers: np.ndarray) -> tuple[int, ...]:
    """Elements and their amounts by the greatest common divisor: (Z₁, n₁, Z₂, n₂, …)."""
    elements, amounts = np.unique(atomic_numbers, return_counts=True)
    amounts = amounts // np.gcd.reduce(amounts)
    return tuple(np.stack([elements, amounts], axis=1).ravel().tolist())


def convert(raw, out, *, name: str, about: dict, cutoff: float = 5.0, upstream=None, **_) -> dict:
    """Convert the file that ``about["sources"]`` names, see `source_file`.

    Args:
        raw: folder with the frozen or the live file.
        out: HDF5 file.
        name: the data set.
        about: title, licence, citation and sources of the data set.
        cutoff: pairs of atoms within this distance are stored, Å.
        upstream: entry of workflow/sources.yaml, for the counts of the frozen file.

    Returns:
        Notes on the data: counts, elements, what was dropped.

    Raises:
        DataError: a file is missing or damaged, or an entry cannot be meant.
    """
    path = source_file(raw, about.get("sources", []))
    is_frozen = path.name == FROZEN
    census = Census(about.get("sources", []), upstream if is_frozen else None)
    formulas: set[tuple[int, ...]] = set()

    def structures():
        count = 0
        for material, cif, energy in records(path):
            where = f"{path}: {material}"
            z, positions, cell = parse_cif(cif, where)
            if energy is None:
                raise DataError(f"{where}: no formation energy")
            count += 1
            formulas.add(reduced_formula(z))
            values = {"formation_energy_per_atom": energy}
            yield Structure(material, z, positions, values, cell)
        census.notes["different formulas"] = len(formulas)

    return write_store(
        out,
        census.count(structures()),
        PROPERTIES,
        name=name,
        notes=census.notes,
        cutoff=cutoff,
        **about,
    )
