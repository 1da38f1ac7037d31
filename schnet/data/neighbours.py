"""Neighbour lists within a cutoff: how they are found, and the files that keep them.

A file of neighbours belongs to one converted data set and one cutoff::

    /offsets   int64 [M + 1]   structure m owns pairs offsets[m]:offsets[m + 1]
    /i, /j     int32 [P]       atoms of a pair, counted within their structure
    /shift     int8  [P, 3]    image of atom j, in lattice vectors (crystals only)

Attributes: version, cutoff in Å, name and ``data``, the digest of the data set it belongs to. Pairs
are
unordered: each is stored once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from schnet.errors import DataError, first_line
from schnet.hdf5 import atomic_hdf5, chunk_shape

if TYPE_CHECKING:
    from schnet.data.store import Store

VERSION = 1
CHUNK = 2048  # structures read and written at a time
MAX_SHIFT = 127  # lattice vectors, what int8 holds


def neighbour_pairs(positions, cell, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unordered pairs (i, j, S) with |r_j + S·cell - r_i| < cutoff, found by the library vesin.

    Periodic images of an atom are neighbours like any other, its own images included.

    Args:
        positions: [n, 3] in Å.
        cell: [3, 3] in Å, rows are lattice vectors; None: no periodicity.
        cutoff: in Å.

    Returns:
        i [P], j [P] and shift [P, 3], integers.
    """
    from vesin import NeighborList

    periodic = cell is not None
    box = np.asarray(cell, float) if periodic else np.zeros((3, 3))
    finder = NeighborList(cutoff=cutoff, full_list=False)
    i, j, shift = finder.compute(
        np.asarray(positions, float), box, periodic=periodic, quantities="ijS"
    )
    return (
        np.asarray(i, np.int64),
        np.asarray(j, np.int64),
        np.asarray(shift, np.int64).reshape(-1, 3),
    )


def lonely_atom(n_atoms: int, i: np.ndarray, j: np.ndarray) -> int | None:
    """The first of ``n_atoms`` atoms that is in no pair, or None."""
    missing = np.setdiff1d(np.arange(n_atoms), np.concatenate([i, j]))
    return int(missing[0]) if len(missing) else None


def checked_pairs(positions, cell, cutoff: float, where: str):
    """``neighbour_pairs`` of a structure, where every atom of a crystal has a neighbour.

    Atoms of molecules may have none. The paper leaves out crystals with such atoms (Sec. III B).

    Raises:
        DataError: an atom of a crystal has no neighbour, or a cell is too flat for the lists.
    """
    i, j, shift = neighbour_pairs(positions, cell, cutoff)
    if cell is not None:
        atom = lonely_atom(len(positions), i, j)
        if atom is not None:
            raise DataError(f"{where}: atom {atom} has no neighbour within {cutoff} Å")
        if np.abs(shift).max(initial=0) > MAX_SHIFT:
            raise DataError(f"{where}: the cell is too small for neighbours within {cutoff} Å")
    return i, j, shift


def find_neighbours(store: Store, indices, cutoff: float):
    """Neighbour lists of structures of a data set, one after the other.

    Args:
        store: the data set.
        indices: of the structures, in any order.
        cutoff: in Å.

    Returns:
        offsets [M + 1], i [P], j [P], and shift [P, 3] or None for molecules.

    Raises:
        DataError: an atom of a crystal has no neighbour; the message names the structure.
    """
    indices = np.asarray(indices, np.int64)
    with store.open() as h5:
        ids = read_rows(h5["ids"], indices)
        positions = read_ragged(h5["positions"], store.offsets, indices)
        cells = read_rows(h5["cell"], indices) if store.periodic else None
    ends = np.cumsum(np.diff(store.offsets)[indices])
    counts, parts, start = [], [], 0
    for k, end in enumerate(ends):
        where = f"{store.path}: structure {ids[k].decode()}"
        cell = None if cells is None else cells[k]
        parts.append(checked_pairs(positions[start:end], cell, cutoff, where))
        counts.append(len(parts[-1][0]))
        start = end
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    i = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
    j = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
    if cells is None:
        return offsets, i, j, None
    return offsets, i, j, np.concatenate([part[2] for part in parts])


def write_neighbours(store: Store, out, cutoff: float) -> int:
    """Write the neighbour lists of a whole data set to the file ``out``.

    Returns:
        The number of pairs.

    Raises:
        DataError: see ``find_neighbours``.
    """
    if not cutoff > 0:
        raise DataError(f"cutoff: {cutoff} Å is not positive")
    small = dict(compression="gzip", compression_opts=1, shuffle=True)
    columns: dict[str, tuple[str, tuple[int, ...]]] = {"i": ("i4", ()), "j": ("i4", ())}
    if store.periodic:
        columns["shift"] = ("i1", (3,))
    total = 0
    offsets = [np.zeros(1, np.int64)]
    with atomic_hdf5(out) as h5:
        for key, (dtype, shape) in columns.items():
            options = small | {"maxshape": (None, *shape), "chunks": chunk_shape(dtype, shape)}
            h5.create_dataset(key, (0, *shape), dtype=dtype, **options)
        for start in range(0, len(store), CHUNK):
            h5.check()
            part = np.arange(start, min(start + CHUNK, len(store)))
            part_offsets, i, j, shift = find_neighbours(store, part, cutoff)
            offsets.append(total + part_offsets[1:])
            total += len(i)
            arrays = {"i": i, "j": j} | ({} if shift is None else {"shift": shift})
            for key, values in arrays.items():
                h5[key].resize(total, axis=0)
                h5[key][total - len(values) :] = values
        h5["offsets"] = np.concatenate(offsets)
        h5.attrs.update(version=VERSION, cutoff=float(cutoff), name=store.name, data=store.digest)
    return total


def read_neighbours(path, store: Store, indices, cutoff: float):
    """Neighbour lists of structures of a data set from a file of ``write_neighbours``.

    Args and returns as of ``find_neighbours``.

    Raises:
        DataError: the file is missing, or belongs to other data or another cutoff.
    """
    path = Path(path)
    again = f"make it with `schnet data neighbours {store.path} {path} --cutoff {cutoff}`"
    if not path.exists():
        raise DataError(f"{path}: no such file of neighbours; {again}")
    try:
        with h5py.File(path, "r") as h5:
            about = dict(h5.attrs)
            if about.get("version") != VERSION:
                raise DataError(f"{path}: not a file of neighbours of this version; {again}")
            if about["data"] != store.digest:
                raise DataError(
                    f"{path}: belongs to other data (digest {about['data'][:12]}…) than "
                    f"{store.path} ({store.digest[:12]}…); {again}"
                )
            if about["cutoff"] != cutoff:
                raise DataError(
                    f"{path}: has neighbours within {about['cutoff']} Å, "
                    f"the model wants {cutoff} Å; {again}"
                )
            everywhere = h5["offsets"][:]
            indices = np.asarray(indices, np.int64)
            counts = np.diff(everywhere)[indices]
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            i = read_ragged(h5["i"], everywhere, indices)
            j = read_ragged(h5["j"], everywhere, indices)
            shift = read_ragged(h5["shift"], everywhere, indices) if store.periodic else None
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file ({error}); {again}") from error
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: damaged ({first_line(error)}); {again}") from error
    return offsets, i, j, shift


def read_rows(dataset, indices: np.ndarray) -> np.ndarray:
    """Rows of a dataset of an HDF5 file, in the order of the indices; reads from first to last."""
    if not len(indices):
        return dataset[:0]
    lo, hi = indices.min(), indices.max() + 1
    return dataset[lo:hi][indices - lo]


def read_ragged(dataset, offsets: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rows of the given structures of a ragged dataset, in the order of the indices.

    Args:
        dataset: of an HDF5 file, [N, …].
        offsets: structure m owns rows offsets[m]:offsets[m + 1].
        indices: the structures.
    """
    starts, ends = offsets[indices], offsets[indices + 1]
    if not len(indices):
        return dataset[:0]
    lo, hi = starts.min(), ends.max()
    if hi - lo <= 4 * (ends - starts).sum():  # dense enough: one large piece is faster than many
        everything = dataset[lo:hi]
        pieces = [everything[a - lo : b - lo] for a, b in zip(starts, ends, strict=True)]
        return np.concatenate(pieces)
    # in the order of the file, then back
    order = np.argsort(indices, kind="stable")
    pieces = [dataset[starts[k] : ends[k]] for k in order]
    back = np.argsort(order, kind="stable")
    return np.concatenate([pieces[k] for k in back])
