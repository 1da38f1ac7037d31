"""Import of the authors' released C20 models: TensorFlow 1 checkpoints, read without TensorFlow.

A checkpoint is a ``.index`` file (a sorted string table of protocol-buffer entries: name -> type,
shape, offset) and a ``.data`` file of raw tensors; ``args.npy`` beside it holds the pickled command
line.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import torch

from schnet.errors import ModelError
from schnet.models.contract import MAX_Z
from schnet.models.schnet import Hyperparameters, SchNet

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}
_TABLE_MAGIC = 0xDB4775248B80FB57


def _varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _block(data: bytes, offset: int, size: int):
    """Key-value pairs of one table block; keys share prefixes with their predecessor."""
    block = data[offset : offset + size]
    if data[offset + size] != 0:
        raise ValueError("compressed index")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _message(buffer: bytes) -> dict[int, list]:
    """Fields of a protocol-buffer message: number -> values (integers or bytes)."""
    fields: dict[int, list] = {}
    value: int | bytes
    at = 0
    while at < len(buffer):
        tag, at = _varint(buffer, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(buffer, at)
        elif kind == 2:
            size, at = _varint(buffer, at)
            value, at = buffer[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = buffer[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_checkpoint(prefix) -> dict[str, np.ndarray]:
    """All tensors of a TensorFlow checkpoint ``PREFIX.index`` + ``PREFIX.data-00000-of-00001``.

    Raises ModelError when a file is missing or damaged.
    """
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")
    for path in (index, data):
        if not path.exists():
            raise ModelError(
                f"{path}: missing; a released model folder holds args.npy and "
                "validation/best_model.*"
            )
    try:
        table, tensors = index.read_bytes(), data.read_bytes()
        if struct.unpack("<Q", table[-8:])[0] != _TABLE_MAGIC:
            raise ValueError("no table footer")
        footer = table[-48:]
        at = 0
        for _ in range(2):
            _, at = _varint(footer, at)
        offset, at = _varint(footer, at)
        size, _ = _varint(footer, at)
        result = {}
        for _, handle in _block(table, offset, size):
            start, after = _varint(handle, 0)
            length, _ = _varint(handle, after)
            for key, value in _block(table, start, length):
                if not key:
                    continue  # the header
                entry = _message(value)
                shape = (
                    [_message(dim).get(1, [0])[0] for dim in _message(entry[2][0]).get(2, [])]
                    if 2 in entry
                    else []
                )
                dtype = np.dtype(_DTYPES[entry[1][0]])
                begin, count = entry.get(4, [0])[0], entry[5][0]
                if count != dtype.itemsize * int(np.prod(shape)) or begin + count > len(tensors):
                    raise ValueError(f"{key.decode()}: {count} bytes at {begin} do not fit")
                result[key.decode()] = (
                    np.frombuffer(tensors, dtype, count // dtype.itemsize, begin)
                    .reshape(shape)
                    .copy()
                )
        return result
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise ModelError(
            f"{index}: not a readable TensorFlow checkpoint ({error}); fetch it again"
        ) from error


class _Arguments(pickle.Unpickler):
    """Unpickles an argparse.Namespace inside a NumPy object array, and refuses everything else."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("argparse", "Namespace"),
        ("_codecs", "encode"),
    }

    def find_class(self, module, name):
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"refused: {module}.{name}")
        if name == "_reconstruct":
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        return super().find_class(module, name)


def read_arguments(path) -> dict:
    """The command line stored in args.npy; the unpickler admits nothing but plain values."""
    try:
        with open(path, "rb") as f:
            if np.lib.format.read_magic(f) != (1, 0):
                raise ValueError("unknown npy version")
            np.lib.format.read_array_header_1_0(f)
            return vars(_Arguments(f, encoding="latin1").load().item())
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: missing; a released model folder holds args.npy and validation/best_model.*"
        ) from error
    except Exception as error:
        raise ModelError(f"{path}: not the arguments of a released model ({error})") from error


def import_tf(folder) -> tuple[SchNet, dict]:
    """Read a released model.

    Args:
        folder: with args.npy and validation/best_model.*.

    Returns:
        A SchNet with the weights of the checkpoint, and the arguments that it was trained with.

    Raises:
        ModelError: something is missing or of another shape.
    """
    folder = Path(folder)
    arguments = read_arguments(folder / "args.npy")
    tensors = {
        k.removesuffix(":0"): v
        for k, v in read_checkpoint(folder / "validation" / "best_model").items()
    }

    def get(suffix):
        matches = (
            [suffix] if suffix in tensors else [k for k in tensors if k.endswith("/" + suffix)]
        )
        if len(matches) != 1:
            raise ModelError(
                f"{folder}: the checkpoint has {len(matches)} tensors named {suffix!r}, "
                "expected one"
            )
        return torch.from_numpy(tensors[matches[0]])

    n_interactions = len(
        {k.split("interaction_")[1].split("/")[0] for k in tensors if "interaction_" in k}
    )
    n_gaussians, n_features = get("interaction_0/SchNetFilter/Dense/W").shape
    r_max = float(arguments.get("cutoff", 20.0))
    p = Hyperparameters(n_interactions=n_interactions, n_features=n_features, r_max=r_max)
    if p.n_gaussians != n_gaussians:
        raise ModelError(f"{folder}: {n_gaussians} Gaussians do not fit a range of {r_max} Å")
    model = SchNet(p)

    def fill(parameter, value):
        if parameter.shape != value.shape:
            raise ModelError(
                f"{folder}: a tensor of shape {tuple(value.shape)} where "
                f"{tuple(parameter.shape)} is expected"
            )
        with torch.no_grad():
            parameter.copy_(value)

    fill(model.embedding.weight, get("atom_embedding/embeddings/W"))
    for k, block in enumerate(model.blocks()):
        name = f"interaction_{k}/"
        fill(block.in2f.weight, get(name + "CFConv/in2fac/W").T)
        for layer, key in (
            (block.filter_network.dense1, "SchNetFilter/Dense/"),
            (block.filter_network.dense2, "SchNetFilter/Dense_1/"),
            (block.f2out, "CFConv/fac2out/"),
            (block.dense, "Dense/"),
        ):
            fill(layer.weight, get(name + key + "W").T)
            fill(layer.bias, get(name + key + "b"))
    head = [
        k
        for k in tensors
        if "interaction_" not in k
        and k.endswith("/W")
        and tensors[k].ndim == 2
        and "embeddings" not in k
    ]
    first = [k for k in head if tensors[k].shape == (n_features, n_features // 2)]
    last = [k for k in head if tensors[k].shape == (n_features // 2, 1)]
    if len(first) != 1 or len(last) != 1:
        raise ModelError(
            f"{folder}: no output network of shape {n_features} → {n_features // 2} → 1"
        )
    for layer, key in ((model.output1, first[0]), (model.output2, last[0])):
        fill(layer.weight, get(key).T)
        fill(layer.bias, get(key[:-1] + "b"))
    model.set_offsets(scale=float(get("std_per_atom")), mean=float(get("mean_per_atom")))
    refs = [k for k in tensors if k.endswith("ref/embeddings/W")]
    if refs:
        values = np.zeros(MAX_Z)
        table = tensors[refs[0]].reshape(-1)
        values[: min(MAX_Z, len(table))] = table[:MAX_Z]
        model.atomrefs.copy_(torch.from_numpy(values))
    return model.eval().requires_grad_(False), {
        k: v for k, v in arguments.items() if isinstance(v, str | int | float | bool)
    }
