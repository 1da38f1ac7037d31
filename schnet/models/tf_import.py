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
from torch import Tensor, nn

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


class _Checkpoint:
    """The tensors of a checkpoint by the ends of their names, and parameters filled from them."""

    def __init__(self, folder: Path):
        self.folder = folder
        found = read_checkpoint(folder / "validation" / "best_model")
        self.tensors = {name.removesuffix(":0"): values for name, values in found.items()}

    def get(self, suffix: str) -> Tensor:
        """The one tensor with this name, or with a name that ends so."""
        names = [suffix] if suffix in self.tensors else self.ending("/" + suffix)
        if len(names) != 1:
            raise ModelError(
                f"{self.folder}: the checkpoint has {len(names)} tensors named {suffix!r}, "
                "expected one"
            )
        return torch.from_numpy(self.tensors[names[0]])

    def ending(self, suffix: str) -> list[str]:
        """Names of all tensors that end so."""
        return [name for name in self.tensors if name.endswith(suffix)]

    def fill(self, parameter: Tensor, value: Tensor) -> None:
        """Copy a tensor into a parameter of the same shape."""
        if parameter.shape != value.shape:
            raise ModelError(
                f"{self.folder}: a tensor of shape {tuple(value.shape)} where "
                f"{tuple(parameter.shape)} is expected"
            )
        with torch.no_grad():
            parameter.copy_(value)

    def fill_layer(self, layer: nn.Linear, name: str, bias: bool = True) -> None:
        """Weights NAME/W, [in, out] in TensorFlow, and bias NAME/b of a layer."""
        self.fill(layer.weight, self.get(f"{name}/W").T)
        if bias:
            self.fill(layer.bias, self.get(f"{name}/b"))

    def output_layer(self, n_in: int, n_out: int) -> str:
        """The name of the one layer outside of interaction blocks with weights [n_in, n_out]."""
        names = [
            name.removesuffix("/W")
            for name in self.ending("/W")
            if "interaction_" not in name
            and "embeddings" not in name
            and self.tensors[name].shape == (n_in, n_out)
        ]
        if len(names) != 1:
            raise ModelError(f"{self.folder}: no output layer of shape {n_in} → {n_out}")
        return names[0]


def _architecture(checkpoint: _Checkpoint, r_max: float) -> Hyperparameters:
    """Hyper-parameters by the number and the shapes of the tensors."""
    named = [name for name in checkpoint.tensors if "interaction_" in name]
    n_interactions = len({name.split("interaction_")[1].split("/")[0] for name in named})
    n_gaussians, n_features = checkpoint.get("interaction_0/SchNetFilter/Dense/W").shape
    p = Hyperparameters(n_interactions=n_interactions, n_features=n_features, r_max=r_max)
    if p.n_gaussians != n_gaussians:
        raise ModelError(
            f"{checkpoint.folder}: {n_gaussians} Gaussians do not fit a range of {r_max} Å"
        )
    return p


def _fill_network(model: SchNet, checkpoint: _Checkpoint) -> None:
    """Embedding, interaction blocks and output network."""
    checkpoint.fill(model.embedding.weight, checkpoint.get("atom_embedding/embeddings/W"))
    for k, block in enumerate(model.blocks()):
        name = f"interaction_{k}"
        checkpoint.fill_layer(block.in2f, f"{name}/CFConv/in2fac", bias=False)
        checkpoint.fill_layer(block.filter_network.dense1, f"{name}/SchNetFilter/Dense")
        checkpoint.fill_layer(block.filter_network.dense2, f"{name}/SchNetFilter/Dense_1")
        checkpoint.fill_layer(block.f2out, f"{name}/CFConv/fac2out")
        checkpoint.fill_layer(block.dense, f"{name}/Dense")
    n_features = model.hyperparameters.n_features
    checkpoint.fill_layer(model.output1, checkpoint.output_layer(n_features, n_features // 2))
    checkpoint.fill_layer(model.output2, checkpoint.output_layer(n_features // 2, 1))


def _single_atoms(checkpoint: _Checkpoint) -> np.ndarray | None:
    """Single-atom references by atomic number [100], where the checkpoint has them."""
    names = checkpoint.ending("ref/embeddings/W")
    if not names:
        return None
    table = checkpoint.tensors[names[0]].reshape(-1)[:MAX_Z]
    return np.pad(table, (0, MAX_Z - len(table)))


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
    checkpoint = _Checkpoint(folder)
    model = SchNet(_architecture(checkpoint, float(arguments.get("cutoff", 20.0))))
    _fill_network(model, checkpoint)
    model.set_offsets(
        scale=float(checkpoint.get("std_per_atom")),
        mean=float(checkpoint.get("mean_per_atom")),
        atomrefs=_single_atoms(checkpoint),
    )
    plain = {k: v for k, v in arguments.items() if isinstance(v, str | int | float | bool)}
    return model.eval().requires_grad_(False), plain
