"""The one HDF5 layout that all data sets are converted to.

Atoms of all structures lie one after the other (ragged layout)::

    /atomic_numbers        uint8   [N]       all atoms of all structures
    /positions             float64 [N, 3]    Å
    /offsets               int64   [M + 1]   structure m owns atoms offsets[m]:offsets[m + 1]
    /ids                   bytes   [M]       the upstream identifier
    /groups                int32   [M]       trajectory or subset the structure belongs to
    /cell                  float64 [M, 3, 3] Å, rows are lattice vectors (crystals only)
    /properties/NAME       float64 [M] or [N, 3], attributes: unit, per_atom, description
    /atomrefs/NAME         float64 [100]     single-atom values by atomic number, unit of the property
    /neighbours/...        unordered pairs within a cutoff (crystals only): offsets [M + 1],
                           i, j int16 [P], shift int8 [P, 3] in lattice vectors

Root attributes: name, title, licence, citation, sources (JSON), notes (JSON), group_names (JSON),
cutoff, version and ``digest``, a SHA-256 over the content. A file without ``digest`` is incomplete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from schnet.errors import DataError
from schnet.files import atomic

VERSION = 1
CHUNK = 4096  # structures buffered before a write; part of the digest's definition
MAX_Z = 100


@dataclass(frozen=True)
class Property:
    unit: str
    description: str
    per_atom: bool = False
    #: True when only an approximation of what upstream means (demo scale)
    approximate: bool = False


@dataclass
class Structure:
    """One structure: atomic_numbers [n], positions [n, 3] in Å, cell [3, 3] in Å or None."""

    id: str
    atomic_numbers: np.ndarray
    positions: np.ndarray
    properties: dict = field(default_factory=dict)
    cell: np.ndarray | None = None
    group: int = 0


def check(structure: Structure, where: str):
    """Raise DataError for a structure that cannot be meant: wrong shapes, NaN, overlapping atoms, flat cell."""
    z, r = np.asarray(structure.atomic_numbers), np.asarray(structure.positions)
    if z.ndim != 1 or not len(z) or r.shape != (len(z), 3):
        raise DataError(f"{where}: {len(z)} atoms but positions of shape {r.shape}")
    if z.min() < 1 or z.max() >= MAX_Z:
        raise DataError(f"{where}: atomic number outside 1–{MAX_Z - 1}")
    if not np.isfinite(r).all():
        raise DataError(f"{where}: a position is not a finite number")
    for name, value in structure.properties.items():
        if not np.isfinite(value).all():
            raise DataError(f"{where}: property {name!r} is not a finite number")
    if structure.cell is not None:
        volume = abs(np.linalg.det(structure.cell)) if np.isfinite(structure.cell).all() else 0.0
        if volume < 1e-3:
            raise DataError(f"{where}: the cell has no volume ({volume:.3g} Å^3)")


def neighbour_pairs(positions, cell, cutoff: float):
    """Unordered pairs (i, j, S) with |r_j + S·cell - r_i| < cutoff, periodic images and self-images included.

    Args: positions [n, 3], cell [3, 3] or None (no periodicity), cutoff in Å.
    Returns: i [P], j [P], shift [P, 3] (integers). Found by the library vesin.
    """
    from vesin import NeighborList

    periodic = cell is not None
    box = np.asarray(cell, float) if periodic else np.zeros((3, 3))
    finder = NeighborList(cutoff=cutoff, full_list=False)
    i, j, shift = finder.compute(np.asarray(positions, float), box, periodic=periodic, quantities="ijS")
    return np.asarray(i, np.int64), np.asarray(j, np.int64), np.asarray(shift, np.int64).reshape(-1, 3)


def write_store(
    path,
    structures: Iterable[Structure],
    properties: dict[str, Property],
    *,
    name: str,
    title: str = "",
    sources: list | None = None,
    notes: dict | None = None,
    atomrefs: dict | None = None,
    group_names: list[str] | None = None,
    cutoff: float | None = None,
    licence: str = "",
    citation: str = "",
) -> dict:
    """Write structures one after the other to ``path``; returns the notes, with counts of what was dropped.

    With ``cutoff`` (crystals) the neighbour pairs are stored as well, and structures in which an atom
    has no neighbour are dropped and counted (Sec. III B of the paper).
    """
    notes = {} if notes is None else notes  # counted up by the caller while structures are drawn
    digest = hashlib.sha256()
    dropped: list[str] = []
    with atomic(path) as temporary, h5py.File(temporary, "w", libver="latest") as h5:
        width = 40
        data: dict[str, list] = {}

        def dataset(key, shape, dtype, **attributes):
            options = dict(compression="gzip", compression_opts=1, shuffle=True) if dtype != "S" else {}
            d = h5.create_dataset(key, (0, *shape), maxshape=(None, *shape), chunks=True, dtype=f"S{width}" if dtype == "S" else dtype, **options)
            d.attrs.update(attributes)
            data[key] = []

        dataset("atomic_numbers", (), "u1")
        dataset("positions", (3,), "f8", unit="Å")
        dataset("ids", (), "S")
        dataset("groups", (), "i4")
        for key, p in properties.items():
            attributes = dict(unit=p.unit, per_atom=p.per_atom, description=p.description, approximate=p.approximate)
            dataset(f"properties/{key}", (3,) if p.per_atom else (), "f8", **attributes)
        counts, pair_counts = [], []
        periodic = cutoff is not None
        if periodic:
            dataset("cell", (3, 3), "f8", unit="Å")
            dataset("neighbours/i", (), "i2")
            dataset("neighbours/j", (), "i2")
            dataset("neighbours/shift", (3,), "i1")

        def flush():
            for key in sorted(data):
                if data[key]:
                    values = np.concatenate(data[key]) if key != "ids" else np.array(data[key], dtype=f"S{width}")
                    d = h5[key]
                    d.resize(len(d) + len(values), axis=0)
                    d[len(d) - len(values) :] = values
                    if not key.startswith("neighbours"):
                        digest.update(key.encode())
                        digest.update(np.ascontiguousarray(values).tobytes())
                    data[key] = []

        for number, s in enumerate(structures):
            check(s, f"{name}: structure {s.id}")
            n = len(s.atomic_numbers)
            if periodic:
                i, j, shift = neighbour_pairs(s.positions, s.cell, cutoff)
                if len(np.unique(np.concatenate([i, j]))) < n:
                    dropped.append(s.id)
                    continue
                if n > 32767 or np.abs(shift).max(initial=0) > 127:
                    raise DataError(f"{name}: structure {s.id}: cell too large or too small for the neighbour list")
                data["cell"].append(np.asarray(s.cell, float)[None])
                data["neighbours/i"].append(i.astype("i2"))
                data["neighbours/j"].append(j.astype("i2"))
                data["neighbours/shift"].append(shift.astype("i1"))
                pair_counts.append(len(i))
            if len(s.id) > width:
                raise DataError(f"{name}: identifier {s.id!r} is longer than {width} characters")
            data["atomic_numbers"].append(np.asarray(s.atomic_numbers, "u1"))
            data["positions"].append(np.asarray(s.positions, "f8"))
            data["ids"].append(s.id.encode())
            data["groups"].append(np.array([s.group], "i4"))
            for key, p in properties.items():
                value = np.asarray(s.properties[key], "f8")
                if value.shape != ((n, 3) if p.per_atom else ()):
                    raise DataError(f"{name}: structure {s.id}: property {key!r} has shape {value.shape}")
                data[f"properties/{key}"].append(value.reshape(-1, 3) if p.per_atom else value[None])
            counts.append(n)
            if number % CHUNK == CHUNK - 1:
                flush()
        flush()
        if not counts:
            raise DataError(f"{name}: no structure to store")
        h5["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype("i8")
        if periodic:
            h5["neighbours/offsets"] = np.concatenate([[0], np.cumsum(pair_counts)]).astype("i8")
            h5.attrs["cutoff"] = float(cutoff)
            notes["dropped: an atom without neighbour"] = len(dropped)
        for key, values in (atomrefs or {}).items():
            h5[f"atomrefs/{key}"] = np.asarray(values, "f8")
            digest.update(np.asarray(values, "f8").tobytes())
        digest.update(h5["offsets"][:].tobytes())
        h5.attrs.update(
            version=VERSION,
            name=name,
            title=title or name,
            licence=licence,
            citation=citation,
            sources=json.dumps(sources or [], ensure_ascii=False),
            notes=json.dumps(notes, ensure_ascii=False),
            group_names=json.dumps(group_names or ["all"], ensure_ascii=False),
            digest=digest.hexdigest(),
        )
    return notes


class Store:
    """Read access to a converted data set; cheap to open, reads only what is asked for.

    Raises DataError when the file is missing, incomplete or from another version of the layout.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{path}: no such data file; make it with `schnet data convert`")
        try:
            with h5py.File(self.path, "r") as h5:
                a = dict(h5.attrs)
                if "digest" not in a:
                    raise DataError(f"{path}: incomplete (no digest); delete it and convert again")
                if a["version"] != VERSION:
                    raise DataError(f"{path}: layout version {a['version']}, this code reads {VERSION}; convert again")
                self.offsets = h5["offsets"][:]
                self.properties = {
                    key: Property(d.attrs["unit"], d.attrs["description"], bool(d.attrs["per_atom"]), bool(d.attrs["approximate"]))
                    for key, d in h5["properties"].items()
                }
                self.atomrefs = {key: d[:] for key, d in h5["atomrefs"].items()} if "atomrefs" in h5 else {}
                self.groups = h5["groups"][:]
        except OSError as error:
            raise DataError(f"{path}: not an HDF5 file ({error}); delete it and convert again") from error
        self.name, self.title, self.digest = str(a["name"]), str(a["title"]), str(a["digest"])
        self.licence, self.citation = str(a["licence"]), str(a["citation"])
        self.sources, self.notes = json.loads(a["sources"]), json.loads(a["notes"])
        self.group_names = json.loads(a["group_names"])
        self.cutoff = float(a["cutoff"]) if "cutoff" in a else None

    def __len__(self):
        return len(self.offsets) - 1

    def open(self):
        return h5py.File(self.path, "r")

    def ids(self, indices=None) -> np.ndarray:
        with self.open() as h5:
            ids = h5["ids"][:].astype(str)
        return ids if indices is None else ids[indices]

    def require(self, name: str) -> Property:
        """The property called ``name``; DataError with the nearest known name otherwise."""
        if name not in self.properties:
            from difflib import get_close_matches

            near = get_close_matches(name, self.properties, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"{self.path}: no property {name!r}; {hint}it has {', '.join(self.properties)}")
        return self.properties[name]

    def structure(self, index: int) -> Structure:
        """One structure with all its properties."""
        if not 0 <= index < len(self):
            raise DataError(f"{self.path}: no structure {index}; it has {len(self)}")
        a, b = self.offsets[index], self.offsets[index + 1]
        with self.open() as h5:
            values = {k: h5[f"properties/{k}"][a:b] if p.per_atom else h5[f"properties/{k}"][index] for k, p in self.properties.items()}
            cell = h5["cell"][index] if "cell" in h5 else None
            return Structure(h5["ids"][index].decode(), h5["atomic_numbers"][a:b], h5["positions"][a:b], values, cell, int(self.groups[index]))
