"""The live database of the Materials Project, through its official client mp-api."""

from __future__ import annotations

import datetime
import json
import os
import re
import warnings
from pathlib import Path

from schnet.data.materials_project import FIELDS, LIVE
from schnet.data.raw_files import FIRST_FETCH, record_of, source_record, verify
from schnet.errors import DataError, SchNetError
from schnet.files import atomic, read_json, write_json

QUERY = {"num_elements": (1, 8), "num_sites": (1, 299)}
BATCH = 500  # materials per request


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
        One record, see `schnet.data.raw_files.source_record`; with database version, query and
        date.

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
