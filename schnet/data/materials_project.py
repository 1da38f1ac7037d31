"""Formation energies of bulk crystals from the Materials Project (Jain et al., APL Mater. 1, 011002, 2013).

Two sources: the frozen ``mp.2018.6.1.json.zip`` (Chen et al., Chem. Mater. 31, 3564, 2019; the closest
public snapshot to the paper's 69,640 crystals) and the live database through the official client mp-api.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zipfile
from pathlib import Path

from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError, SchNetError
from schnet.files import atomic, read_json, write_json

PROPERTIES = {"formation_energy_per_atom": Property("eV/atom", "formation energy per atom")}
FROZEN, LIVE = "mp.2018.6.1.json.zip", "materials_project_live.jsonl"
FIELDS = ["material_id", "structure", "formation_energy_per_atom"]
QUERY = {"num_elements": (1, 8), "num_sites": (1, 299)}
BATCH = 500  # materials per request


def parse_cif(text: str, where: str):
    """(atomic_numbers, positions, cell) of a P1 CIF text, through ase."""
    from ase.io import read

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = read(io.StringIO(text), format="cif")
    except Exception as error:
        raise DataError(f"{where}: CIF text cannot be read ({type(error).__name__}: {error})") from error
    return atoms.numbers, atoms.positions, atoms.cell.array


def _json_list(stream, where):
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
                raise DataError(f"{where}: JSON text damaged or cut off ({error}); delete it and fetch again") from error
            text += piece


def records(path):
    """(material_id, CIF text, formation energy per atom) of a frozen or live file, one at a time."""
    path = Path(path)
    try:
        if path.suffix == ".jsonl":
            with open(path, encoding="utf-8") as f:
                for line in f:
                    item = json.loads(line)
                    yield item["material_id"], item["structure"], item["formation_energy_per_atom"]
            return
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".json")]
            if len(names) != 1:
                raise DataError(f"{path}: one .json member expected, found {len(names)}")
            with archive.open(names[0]) as raw:
                for item in _json_list(io.TextIOWrapper(raw, "utf-8"), path):
                    yield item["material_id"], item["structure"], item["formation_energy_per_atom"]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{path}: archive damaged or cut off ({error}); delete it and fetch again") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: an entry lacks {', '.join(FIELDS)} ({error})") from error


def convert(raw, out, *, name, about, cutoff=5.0, **_):
    """raw: folder with one of the two files (the live one is preferred); out: HDF5 with pairs within ``cutoff`` Å."""
    raw = Path(raw)
    path = raw / LIVE if (raw / LIVE).exists() else raw / FROZEN
    if not path.exists():
        raise DataError(f"{raw}: neither {LIVE} nor {FROZEN}")

    def structures():
        for material, cif, energy in records(path):
            where = f"{path}: {material}"
            z, positions, cell = parse_cif(cif, where)
            if energy is None:
                raise DataError(f"{where}: no formation energy")
            yield Structure(material, z, positions, {"formation_energy_per_atom": float(energy)}, cell)

    return write_store(out, structures(), PROPERTIES, name=name, cutoff=cutoff, **about)


def api_key() -> str:
    """The key from the environment; SchNetError that never repeats it when it is missing or malformed."""
    key = os.environ.get("MP_API_KEY", "")
    if not key:
        raise SchNetError("MP_API_KEY is not set; get a key at https://materialsproject.org/api and `export MP_API_KEY=…`, or use source: frozen")
    if not re.fullmatch(r"[A-Za-z0-9]{32}", key):
        raise SchNetError(f"MP_API_KEY has {len(key)} characters; a key of the Materials Project has 32 letters and digits (old keys do not work)")
    return key


def fetch_live(raw, *, endpoint: str | None = None, progress: bool = True) -> Path:
    """Query the live database through mp-api into ``raw``/materials_project_live.jsonl.

    The list of materials is fetched first and kept; materials then come in batches, one file each, so an
    interrupted download continues where it stopped. Query, database version and date are recorded beside.
    """
    import datetime

    from tqdm import tqdm

    key = api_key()
    raw = Path(raw)
    out, parts = raw / LIVE, raw / "materials_project_parts"
    if out.exists():
        return out

    def call(what, **query):
        """One request through the client; its errors become ours, without the key."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return client.materials.summary.search(**query)
        except Exception as error:
            message = " ".join(str(error).replace(key, "***").split())[:300]
            hint = (
                "the key was refused; check MP_API_KEY"
                if re.search(r"\b(401|403)\b|api.?key|forbidden|unauthor", message, re.I)
                else "run again to continue"
            )
            raise SchNetError(f"Materials Project: {what} failed ({message}); {hint}") from None

    try:
        from mp_api.client import MPRester

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = MPRester(key, endpoint=endpoint, use_document_model=False, mute_progress_bars=True)
    except Exception as error:
        message = " ".join(str(error).replace(key, "***").split())[:300]
        raise SchNetError(f"Materials Project: the client could not connect ({message}); check the network and MP_API_KEY") from None
    with client:
        version = str(client.db_version)
        listed = parts / "materials.json"
        if listed.exists() and read_json(listed)["database_version"] != version:
            raise SchNetError(
                f"{parts}: was begun with database {read_json(listed)['database_version']}, it is {version} now; delete the folder to start anew"
            )
        if not listed.exists():
            found = call("listing the materials", fields=["material_id"], chunk_size=1000, **QUERY)
            ids = sorted({str(d["material_id"]) for d in found})
            if not ids:
                raise SchNetError("Materials Project: the query found no material")
            write_json(listed, {"database_version": version, "query": QUERY, "date": datetime.date.today().isoformat(), "materials": ids})
        about = read_json(listed)
        ids = about["materials"]
        batches = [ids[k : k + BATCH] for k in range(0, len(ids), BATCH)]
        for number, batch in enumerate(tqdm(batches, desc="Materials Project", unit="batch", disable=not progress)):
            part = parts / f"{number:05d}.jsonl"
            if part.exists():
                continue
            documents = call(f"batch {number + 1} of {len(batches)}", material_ids=batch, fields=FIELDS, chunk_size=BATCH)
            lines = []
            for d in sorted(documents, key=lambda d: str(d["material_id"])):
                if d.get("formation_energy_per_atom") is not None:
                    structure = _structure(d["structure"])
                    energy = float(d["formation_energy_per_atom"])
                    lines.append(json.dumps({"material_id": str(d["material_id"]), "structure": structure, "formation_energy_per_atom": energy}))
            if not lines:
                raise SchNetError(f"Materials Project: batch {number + 1} came back empty; run again to continue")
            with atomic(part) as temporary:
                temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with atomic(out) as temporary, open(temporary, "w", encoding="utf-8") as f:
        for number in range(len(batches)):
            f.write((parts / f"{number:05d}.jsonl").read_text(encoding="utf-8"))
    write_json(
        raw / (LIVE + ".source.json"), {k: about[k] for k in ("database_version", "query", "date")} | {"url": "mp-api: materials.summary.search"}
    )
    return out


def _structure(value) -> str:
    """CIF text of a pymatgen structure, given as an object or as its dictionary."""
    if isinstance(value, dict):
        from pymatgen.core import Structure as Pymatgen

        value = Pymatgen.from_dict(value)
    if not value.is_ordered:
        raise SchNetError("Materials Project: a structure with partial occupancies came back")
    return str(value.to(fmt="cif"))
