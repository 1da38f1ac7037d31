"""The one HDF5 layout that all data sets are converted to.

Atoms of all structures lie one after the other (ragged layout)::

    /atomic_numbers        uint8   [N]       all atoms of all structures
    /positions             float64 [N, 3]    Å
    /offsets               int64   [M + 1]   structure m owns atoms offsets[m]:offsets[m + 1]
    /ids                   bytes   [M]       the upstream identifier
    /groups                int32   [M]       trajectory or subset the structure belongs to
    /cell                  float64 [M, 3, 3] Å, rows are lattice vectors (crystals only)
    /properties/NAME       float64 [M] or [N, 3], attributes: unit, per_atom, description, kind
    /atomrefs/NAME         float64 [100]     single-atom values by atomic number, property's unit

Root attributes: name, title, licence, citation, sources (JSON), notes (JSON), group_names (JSON),
cutoff (crystals only: in Å, every atom has a neighbour within it), version and ``digest``, a
SHA-256 over the content. A file without ``digest`` is incomplete. Neighbour lists are files of
their own, see schnet/data/neighbours.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.distance import pdist

from schnet.data.neighbours import MAX_SHIFT, lonely_atom, neighbour_pairs
from schnet.errors import DataError, first_line
from schnet.hdf5 import atomic_hdf5, chunk_shape

VERSION = 2
CHUNK = 4096  # structures buffered before a write; part of the digest's definition
MAX_Z = 100
ID_WIDTH = 40  # characters
OVERLAP = 0.1  # Å; no two nuclei come this close


KINDS = ("energy", "forces", "other")


@dataclass(frozen=True)
class Property:
    """A property of the structures of a data set.

    Attributes:
        unit: a unit of schnet/units.py.
        description: in words, for people.
        per_atom: a vector [3] for every atom, instead of one number for every structure.
        approximate: only an approximation of what upstream means (demo scale).
        kind: ``energy``: a total energy of the structure, a function of the positions whose
            negative gradient are the forces on the atoms; ``forces``: these; ``other``: everything
            else, also orbital energies, formation energies per atom and free energies.
    """

    unit: str
    description: str
    per_atom: bool = False
    approximate: bool = False
    kind: str = "other"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind of a property: {self.kind!r} is none of {', '.join(KINDS)}")


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
    """Raise DataError for a structure that cannot be meant.

    Wrong shapes, unknown elements, what is no finite number, a flat cell, atoms that overlap
    (images in a crystal: see `_is_lonely`).
    """
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
    _check_distances(pdist(r), where)


def _check_distances(distances: np.ndarray, where: str) -> None:
    """Raise DataError where a distance is so small that two atoms overlap."""
    nearest = distances.min(initial=np.inf)
    if nearest < OVERLAP:
        raise DataError(f"{where}: two atoms overlap ({nearest:.3g} Å apart)")


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
    """Write structures one after the other to ``path``.

    Args:
        path: HDF5 file to write.
        structures: drawn one at a time.
        properties: what every structure has, by name.
        name, title, licence, citation: of the data set.
        sources: where the data came from, as ``fetch`` reports it.
        notes: what a reader should know; may be counted up by the caller while structures are
        drawn.
        atomrefs: single-atom values [100] of properties, by name.
        group_names: names of the groups that structures belong to, by number.
        cutoff: in Å, for crystals, which then have cells: those in which an atom has no neighbour
            within it are dropped and counted (Sec. III B of the paper). None: molecules.

    Returns:
        The notes, with counts of what was dropped.

    Raises:
        DataError: a structure cannot be meant, or is a crystal where no cutoff is given; the
            message names it.
    """
    notes = {} if notes is None else notes
    with atomic_hdf5(path) as h5:
        columns = _make_columns(h5, properties, cutoff is not None)
        counts, dropped, known = [], 0, set()
        for number, structure in enumerate(structures):
            h5.check()
            where = f"{name}: structure {structure.id}"
            if structure.id in known:
                raise DataError(f"{where}: occurs twice")
            known.add(structure.id)
            check(structure, where)
            if cutoff is None and structure.cell is not None:
                raise DataError(f"{where}: has a cell; crystals are stored with a cutoff")
            if cutoff is not None and _is_lonely(structure, cutoff, where):
                dropped += 1
                continue
            _append(columns, structure, properties, where)
            counts.append(len(structure.atomic_numbers))
            if number % CHUNK == CHUNK - 1:  # not after a dropped one: the digest depends on it
                columns.flush()
        columns.flush()
        if not counts:
            raise DataError(f"{name}: no structure to store")
        h5["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype("i8")
        if cutoff is not None:
            h5.attrs["cutoff"] = float(cutoff)
            notes["dropped: an atom without neighbour"] = dropped
        digest = columns.digest
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


class _Columns:
    """Growing datasets of an HDF5 file, buffered, and a digest of all that goes into them.

    The digest runs over the datasets in the order of their names, one flush after the other.
    """

    def __init__(self, h5: h5py.File):
        self.h5 = h5
        self.digest = hashlib.sha256()
        self.datasets: dict[str, h5py.Dataset] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.buffers: dict[str, list[np.ndarray]] = {}

    def create(self, key: str, dtype: str, shape: tuple[int, ...] = (), **attributes) -> None:
        """Add a dataset [0, *shape], which grows along its first axis."""
        options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        options |= {"maxshape": (None, *shape), "chunks": chunk_shape(dtype, shape)}
        dataset = self.h5.create_dataset(key, (0, *shape), dtype, **options)
        dataset.attrs.update(attributes)
        # looking them up in the file costs more than all the rest of a small structure
        self.datasets[key], self.dtypes[key], self.buffers[key] = dataset, dataset.dtype, []

    def append(self, key: str, rows) -> None:
        """Add rows [n, *shape] to a dataset."""
        self.buffers[key].append(np.asarray(rows, self.dtypes[key]))

    def flush(self) -> None:
        """Write what is buffered."""
        for key in sorted(self.buffers):
            if self.buffers[key]:
                rows = np.concatenate(self.buffers[key])
                dataset = self.datasets[key]
                dataset.resize(len(dataset) + len(rows), axis=0)
                dataset[len(dataset) - len(rows) :] = rows
                self.digest.update(key.encode())
                self.digest.update(np.ascontiguousarray(rows).tobytes())
                self.buffers[key] = []


def _make_columns(h5: h5py.File, properties: dict[str, Property], periodic: bool) -> _Columns:
    """The datasets of the layout, empty."""
    columns = _Columns(h5)
    columns.create("atomic_numbers", "u1")
    columns.create("positions", "f8", (3,), unit="Å")
    columns.create("ids", f"S{ID_WIDTH}")
    columns.create("groups", "i4")
    if periodic:
        columns.create("cell", "f8", (3, 3), unit="Å")
    h5.create_group("properties")
    for key, p in properties.items():
        columns.create(f"properties/{key}", "f8", (3,) if p.per_atom else (), **asdict(p))
    return columns


def _is_lonely(structure: Structure, cutoff: float, where: str) -> bool:
    """Whether an atom of a crystal has no neighbour within the cutoff."""
    i, j, shift = neighbour_pairs(structure.positions, structure.cell, cutoff)
    if np.abs(shift).max(initial=0) > MAX_SHIFT:
        raise DataError(f"{where}: the cell is too small for neighbours within {cutoff} Å")
    vectors = structure.positions[j] + shift @ structure.cell - structure.positions[i]
    _check_distances(np.linalg.norm(vectors, axis=1), where)
    return lonely_atom(len(structure.atomic_numbers), i, j) is not None


def _append(
    columns: _Columns, structure: Structure, properties: dict[str, Property], where: str
) -> None:
    """Add a structure to the datasets; DataError where something does not fit."""
    n = len(structure.atomic_numbers)
    if len(structure.id) > ID_WIDTH:
        raise DataError(f"{where}: the identifier is longer than {ID_WIDTH} characters")
    columns.append("atomic_numbers", structure.atomic_numbers)
    columns.append("positions", structure.positions)
    columns.append("ids", [structure.id.encode()])
    columns.append("groups", [structure.group])
    if "cell" in columns.buffers:
        columns.append("cell", [structure.cell])
    for key, p in properties.items():
        value = np.asarray(structure.properties[key], "f8")
        if value.shape != ((n, 3) if p.per_atom else ()):
            raise DataError(f"{where}: property {key!r} has shape {value.shape}")
        columns.append(f"properties/{key}", value if p.per_atom else [value])


def _property(dataset: h5py.Dataset) -> Property:
    """The description of a property from the attributes of its dataset."""
    a = dataset.attrs
    return Property(
        unit=str(a["unit"]),
        description=str(a["description"]),
        per_atom=bool(a["per_atom"]),
        approximate=bool(a["approximate"]),
        kind=str(a["kind"]),
    )


def _check_lengths(h5: h5py.File) -> None:
    """Raise ValueError where a dataset of the layout is missing or has another length."""
    n_structures, n_atoms = len(h5["offsets"]) - 1, h5["offsets"][-1]
    per_atom = [h5["atomic_numbers"], h5["positions"]]
    per_structure = [h5["ids"], h5["groups"], *([h5["cell"]] if "cell" in h5 else [])]
    for dataset in h5["properties"].values():
        (per_atom if dataset.attrs["per_atom"] else per_structure).append(dataset)
    for length, datasets in ((n_atoms, per_atom), (n_structures, per_structure)):
        wrong = [d.name for d in datasets if len(d) != length]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not of length {length:,}")


class Store:
    """Read access to a converted data set; cheap to open, reads only what is asked for.

    Attributes:
        path, name, title, licence, citation, sources, notes: of the data set.
        digest: of its content.
        properties: what every structure has, by name.
        atomrefs: single-atom values [100] by property.
        offsets: structure m owns atoms offsets[m]:offsets[m + 1].
        groups, group_names: the group of every structure [M], and what the groups are called.
        periodic: whether the structures are crystals, with cells.
        cutoff: every atom of a crystal has a neighbour within it, in Å; None for molecules.

    Raises:
        DataError: the file is missing, incomplete or from another version of the layout.
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
                    raise DataError(
                        f"{path}: layout version {a['version']}, this code reads {VERSION}; "
                        "delete it and convert again"
                    )
                self.offsets = h5["offsets"][:]
                self.groups = h5["groups"][:]
                self.periodic = "cell" in h5
                self.properties = {key: _property(d) for key, d in h5["properties"].items()}
                self.atomrefs = {key: d[:] for key, d in h5.get("atomrefs", {}).items()}
                _check_lengths(h5)
            self.name, self.title, self.digest = str(a["name"]), str(a["title"]), str(a["digest"])
            self.licence, self.citation = str(a["licence"]), str(a["citation"])
            self.sources, self.notes = json.loads(a["sources"]), json.loads(a["notes"])
            self.group_names = json.loads(a["group_names"])
            self.cutoff = float(a["cutoff"]) if "cutoff" in a else None
        except OSError as error:
            raise DataError(
                f"{path}: not an HDF5 file ({first_line(error)}); a data set as `schnet data "
                "convert` writes it is expected: convert again"
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise DataError(
                f"{path}: damaged ({first_line(error)}); delete it and convert again"
            ) from error

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def open(self) -> h5py.File:
        """The file itself, to be used in a ``with`` statement."""
        return h5py.File(self.path, "r")

    def ids(self, indices=None) -> np.ndarray:
        """Upstream identifiers of the given structures, or of all."""
        with self.open() as h5:
            ids = h5["ids"][:].astype(str)
        return ids if indices is None else ids[indices]

    def require(self, name: str) -> Property:
        """The property called ``name``; DataError with the nearest known name otherwise."""
        if name not in self.properties:
            near = get_close_matches(name, self.properties, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"{self.path}: no property {name!r}; {hint}it has {', '.join(self.properties)}"
            )
        return self.properties[name]

    def forces_of(self, target: str) -> str | None:
        """The property that holds the forces of an energy, or None where there is no such thing."""
        if self.require(target).kind != "energy":
            return None
        forces = [name for name, p in self.properties.items() if p.kind == "forces"]
        return forces[0] if forces else None

    def structure(self, index: int) -> Structure:
        """One structure with all its properties; DataError where there is none."""
        return next(self.structures([index]))

    def structures(self, indices: Iterable[int]) -> Iterator[Structure]:
        """Structures with all their properties; DataError for an index that is none."""
        with self.open() as h5:
            for index in indices:
                if not 0 <= index < len(self):
                    raise DataError(f"{self.path}: no structure {index}; it has {len(self)}")
                yield self._structure(h5, index)

    def _structure(self, h5: h5py.File, index: int) -> Structure:
        a, b = self.offsets[index], self.offsets[index + 1]
        values = {
            k: h5[f"properties/{k}"][a:b] if p.per_atom else h5[f"properties/{k}"][index]
            for k, p in self.properties.items()
        }
        cell = h5["cell"][index] if "cell" in h5 else None
        return Structure(
            h5["ids"][index].decode(),
            h5["atomic_numbers"][a:b],
            h5["positions"][a:b],
            values,
            cell,
            int(self.groups[index]),
        )
