"""Formation energies of bulk crystals from the Materials Project.

Jain et al., APL Mater. 1, 011002 (2013). Two sources: the frozen ``mp.2018.6.1.json.zip`` (Chen
et al., Chem. Mater. 31, 3564, 2019; the closest public snapshot to the paper's 69,640 crystals) and
the live database through the official client mp-api.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from schnet.data.census import Census
from schnet.data.fetch import FIRST_FETCH, record_of, source_record, verify
from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError, SchNetError, first_line
from schnet.files import atomic, read_json, write_json

PROPERTIES = {"formation_energy_per_atom": Property("eV/atom", "formation energy per atom")}
FROZEN, LIVE = "mp.2018.6.1.json.zip", "materials_project_live.jsonl"
FIELDS = ["material_id", "structure", "formation_energy_per_atom"]
QUERY = {"num_elements": (1, 8), "num_sites": (1, 299)}
BATCH = 500  # materials per request


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


def api_key() -> str:
    """The key from the environment variable MP_API_KEY.

    Raises:
        SchNetError: it is missing or malformed; the message never repeats it.
    """
    key = os.environ.get("MP_API_KEY", "")
    if not key:
        raise SchNetError(
            "MP_API_KEY is not set; get a key at https://materialsproject.org/api and "
            "`export MP_API_KEY=…`, or use materials_project: frozen"
        )
    if not re.fullmatch(r"[A-Za-z0-9]{32}", key):
        raise SchNetError(
            f"MP_API_KEY has {len(key)} characters; a key of the Materials Project has 32 letters "
            "and digits (old keys do not work)"
        )
    return key


class _Live:
    """The live database behind the official client; its errors become ours, without the key."""

    def __init__(self, endpoint: str | None):
        self.key = api_key()
        try:
            from mp_api.client import MPRester

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.client = MPRester(
                    self.key, endpoint=endpoint, use_document_model=False, mute_progress_bars=True
                )
        except Exception as error:
            raise SchNetError(
                f"Materials Project: the client could not connect ({self._message(error)}); "
                "check the network and MP_API_KEY"
            ) from None

    def _message(self, error: Exception) -> str:
        return " ".join(str(error).replace(self.key, "***").split())[:300]

    def version(self) -> str:
        """Version of the database."""
        return str(self.client.db_version)

    def search(self, what: str, **query) -> list[dict]:
        """One search of the summaries; ``what`` names it in messages."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.client.materials.summary.search(**query)
        except Exception as error:
            message = self._message(error)
            hint = "run again to continue"
            if re.search(r"\b(401|403)\b|api.?key|forbidden|unauthor", message, re.I):
                hint = "the key was refused; check MP_API_KEY"
            raise SchNetError(f"Materials Project: {what} failed ({message}); {hint}") from None


def _list_materials(live: _Live, parts: Path) -> dict:
    """Database version, query, date and materials of a download begun now or earlier."""
    listed = parts / "materials.json"
    version = live.version()
    if listed.exists():
        about = read_json(listed)
        if about["database_version"] != version:
            raise SchNetError(
                f"{parts}: was begun with database {about['database_version']}, it is {version} "
                "now; delete the folder to start anew"
            )
        return about
    found = live.search("listing the materials", fields=["material_id"], chunk_size=1000, **QUERY)
    materials = sorted({str(d["material_id"]) for d in found})
    if not materials:
        raise SchNetError("Materials Project: the query found no material")
    write_json(
        listed,
        {
            "database_version": version,
            "query": QUERY,
            "date": datetime.date.today().isoformat(),
            "materials": materials,
        },
    )
    return read_json(listed)


def _line(document: dict) -> str:
    """One line of the live file."""
    return json.dumps(
        {
            "material_id": str(document["material_id"]),
            "structure": _structure(document["structure"]),
            "formation_energy_per_atom": float(document["formation_energy_per_atom"]),
        }
    )


def _download(live: _Live, parts: Path, materials: list[str], progress: bool) -> list[Path]:
    """The materials in files of BATCH each; those that are there are not asked for again."""
    from tqdm import tqdm

    batches = [materials[k : k + BATCH] for k in range(0, len(materials), BATCH)]
    files = [parts / f"{number:05d}.jsonl" for number in range(len(batches))]
    bar = tqdm(batches, desc="Materials Project", unit="batch", disable=not progress)
    for number, (batch, part) in enumerate(zip(bar, files, strict=True)):
        if part.exists():
            continue
        documents = live.search(
            f"batch {number + 1} of {len(batches)}",
            material_ids=batch,
            fields=FIELDS,
            chunk_size=BATCH,
        )
        documents = [d for d in documents if d.get("formation_energy_per_atom") is not None]
        if not documents:
            raise SchNetError(
                f"Materials Project: batch {number + 1} came back empty; run again to continue"
            )
        documents.sort(key=lambda d: str(d["material_id"]))
        with atomic(part) as temporary:
            text = "".join(_line(d) + "\n" for d in documents)
            temporary.write_text(text, encoding="utf-8")
    return files


def fetch_live(raw, *, endpoint: str | None = None, progress: bool = True) -> list[dict]:
    """Query the live database through mp-api into ``raw``/materials_project_live.jsonl.

    The list of materials is fetched first and kept; materials then come in batches, one file each,
    so an interrupted download continues where it stopped. A complete file is kept.

    Args:
        raw: the data set's folder of raw files.
        endpoint: URL of the interface, the client's own by default.
        progress: whether to draw a bar.

    Returns:
        One record (see `schnet.data.fetch.source_record`), with database version, query and date.

    Raises:
        SchNetError: no key, a refused key, or the database does not answer; never with the key.
        DataError: the file is there and has changed since it was fetched.
    """
    raw = Path(raw)
    out, parts = raw / LIVE, raw / "materials_project_parts"
    listed = parts / "materials.json"
    if out.exists():
        known = read_json(record_of(out)) if record_of(out).exists() else {}
        if "sha256" in known:
            try:
                verify(out, known, str(out))
            except DataError as error:
                raise DataError(f"{error}; delete it and {parts} and run again") from error
            return [known]
        about = known or (read_json(listed) if listed.exists() else {})
    else:
        live = _Live(endpoint)
        with live.client:
            about = _list_materials(live, parts)
            files = _download(live, parts, about["materials"], progress)
        with atomic(out) as temporary, open(temporary, "w", encoding="utf-8") as f:
            for part in files:
                f.write(part.read_text(encoding="utf-8"))
    queried = {k: about[k] for k in ("database_version", "query", "date") if k in about}
    record = source_record(out, "mp-api: materials.summary.search", FIRST_FETCH, **queried)
    write_json(record_of(out), record)
    return [record]


def _structure(value) -> str:
    """CIF text of a pymatgen structure, given as an object or as its dictionary."""
    if isinstance(value, dict):
        from pymatgen.core import Structure as Pymatgen

        value = Pymatgen.from_dict(value)
    if not value.is_ordered:
        raise SchNetError("Materials Project: a structure with partial occupancies came back")
    return str(value.to(fmt="cif"))
