"""Seeded, disjoint, exact splits that know which data they belong to."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from schnet.data.store import Store
from schnet.errors import ConfigError, DataError, first_line
from schnet.files import atomic

STRATEGIES = ("random", "by_group", "predefined")


def make_split(
    store: Store, *, n_train: int, n_validation: int, seed: int, strategy: str = "random"
) -> dict[str, np.ndarray]:
    """Indices of the parts of a data set.

    Args:
        store: the data set.
        n_train, n_validation: sizes, at least 1.
        seed: of the random choice.
        strategy: ``random``: everything shuffled by the seed; the same seed gives the same
            validation set and nested training sets for every size. ``by_group``: whole groups
            (trajectories) are test data, the largest share of the others train and validate.
            ``predefined``: the data set's own subsets (ISO17: train, validation, test_within,
            test_other), of which the training part is thinned out to ``n_train``.

    Returns:
        Indices of every part by name: train, validation, and test or several test parts.

    Raises:
        ConfigError: no such strategy, or a size below 1.
        DataError: the data set is too small, or not divided as the strategy wants it.
    """
    for name, size in (("n_train", n_train), ("n_validation", n_validation)):
        if size < 1:
            raise ConfigError(f"{name}: {size}; at least 1 structure is needed")
    if strategy not in STRATEGIES:
        raise ConfigError(f"split strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    rng = np.random.default_rng([seed, zlib.crc32(strategy.encode())])
    everything = rng.permutation(len(store))
    if strategy == "predefined":
        names = store.group_names
        if "train" not in names or "validation" not in names:
            raise DataError(f"{store.path}: has no predefined parts, only {', '.join(names)}")
        part = {name: everything[store.groups[everything] == k] for k, name in enumerate(names)}
        pool, validation = part.pop("train"), part.pop("validation")
        _enough(store, "training", n_train, len(pool))
        _enough(store, "validation", n_validation, len(validation))
        parts = {"train": pool[:n_train], "validation": validation[:n_validation], **part}
    elif strategy == "by_group":
        groups = rng.permutation(np.unique(store.groups))
        if len(groups) < 2:
            raise DataError(f"{store.path}: one trajectory only, it cannot be split by trajectory")
        held_out = groups[: max(1, len(groups) // 5)]
        inside = everything[~np.isin(store.groups[everything], held_out)]
        test = everything[np.isin(store.groups[everything], held_out)]
        _enough(
            store,
            "training and validation (without the held-out trajectories)",
            n_train + n_validation,
            len(inside),
        )
        parts = {
            "validation": inside[:n_validation],
            "train": inside[n_validation : n_validation + n_train],
            "test": test,
        }
    else:
        _enough(store, "training, validation and test", n_train + n_validation + 1, len(store))
        parts = {
            "validation": everything[:n_validation],
            "train": everything[n_validation : n_validation + n_train],
            "test": everything[n_validation + n_train :],
        }
    return {name: np.sort(v) if name.startswith("test") else v for name, v in parts.items()}


def _enough(store, what, wanted, there):
    if wanted > there:
        raise DataError(
            f"{store.path}: {wanted:,} structures wanted for {what}, the data set has {there:,}; "
            "choose smaller sizes in the scale file"
        )


def seen_in_training(store: Store, parts: dict[str, np.ndarray]) -> int:
    """Number of structures of the other parts that are, bit for bit, in the training part too.

    Trajectories that were joined twice do that; errors of the other parts are then too small.
    """
    with store.open() as h5:
        arrays = [h5["atomic_numbers"][:], h5["positions"][:]]

    def content(index: int) -> bytes:
        atoms = slice(store.offsets[index], store.offsets[index + 1])
        return hashlib.sha256(b"".join(array[atoms].tobytes() for array in arrays)).digest()

    training = {content(index) for index in parts["train"]}
    others = (index for name, part in parts.items() if name != "train" for index in part)
    return sum(content(index) in training for index in others)


def save_split(path, store: Store, parts: dict[str, np.ndarray], **about):
    """Write indices and ids of all parts and the digest of the data set they belong to."""
    ids = store.ids()
    arrays = {f"indices/{k}": v.astype("i8") for k, v in parts.items()} | {
        f"ids/{k}": ids[v] for k, v in parts.items()
    }
    with atomic(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, digest=store.digest, parts=list(parts), about=repr(about), **arrays)


def _read_split(path) -> tuple[str, dict[str, np.ndarray]]:
    """The digest of the data that a split belongs to, and its parts; DataError if it is none."""
    if not Path(path).exists():
        raise DataError(f"{path}: no such split; make it with `schnet split`")
    damage = (ValueError, OSError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
    try:
        with np.load(path, allow_pickle=False) as f:
            parts = {str(name): f[f"indices/{name}"] for name in f["parts"]}
            digest = str(f["digest"])
        if not {"train", "validation"} <= parts.keys():
            raise ValueError("no parts train and validation")
        if any(part.dtype.kind != "i" or part.ndim != 1 for part in parts.values()):
            raise ValueError("indices are no lists of whole numbers")
    except damage as error:
        reason = first_line(error)
        raise DataError(
            f"{path}: not a split file ({reason}); delete it and split again"
        ) from error
    return digest, parts


def load_split(path, store: Store) -> dict[str, np.ndarray]:
    """The parts of a split; DataError when it belongs to other data or its parts overlap."""
    digest, parts = _read_split(path)
    if digest != store.digest:
        raise DataError(
            f"{path}: belongs to other data (digest {digest[:12]}…) than {store.path} "
            f"({store.digest[:12]}…); split again"
        )
    everything = np.concatenate(list(parts.values()))
    if (
        len(np.unique(everything)) != len(everything)
        or everything.min() < 0
        or everything.max() >= len(store)
    ):
        raise DataError(f"{path}: parts overlap or point outside the data; split again")
    return parts


def split_digest(path) -> str:
    """SHA-256 of the parts of a split and of the data that they belong to."""
    digest, parts = _read_split(path)
    h = hashlib.sha256(digest.encode())
    for name, indices in parts.items():
        h.update(name.encode() + np.ascontiguousarray(indices).tobytes())
    return h.hexdigest()
