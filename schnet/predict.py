"""Predictions for any file ASE can read."""

from __future__ import annotations

import torch
from ase import Atoms
from ase.io import write

from schnet.data.structures import from_atoms, read_images
from schnet.engine.inference import Predictor
from schnet.errors import DataError
from schnet.files import atomic
from schnet.models import load_model
from schnet.trained import find_model

BATCH = 64


def predict_file(model_path, structures, output, *, threads: int = 1, device: str = "cpu") -> None:
    """Predict all structures of a file and write them to an extended xyz file.

    There they carry ``schnet_TARGET`` (and arrays ``schnet_forces`` where the model was trained on
    forces) in the units of the model, and ``schnet_unit``.

    Args:
        model_path: model file.
        structures: any file that ASE reads.
        output: the extended xyz file to write.
        threads: of the C++ engine.
        device: "cpu" or "cuda".

    Raises:
        DataError: the structures cannot be read, or the model cannot predict one of them.
    """
    model_path = find_model(model_path)
    model = load_model(model_path)
    images = read_images(structures)
    predictor = Predictor(model, threads=threads, device=device)
    out: list[Atoms] = []
    for start in range(0, len(images), BATCH):
        try:
            out += _predict(predictor, images[start : start + BATCH])
        except DataError as error:
            last = min(start + BATCH, len(images)) - 1
            raise DataError(f"{structures}, structures {start} to {last}: {error}") from error
    with atomic(output) as temporary:
        write(temporary, out, format="extxyz")
    print(f"{output}: {len(out):,} structures, {model.target} in {model.unit}")


def _predict(predictor: Predictor, images: list[Atoms]) -> list[Atoms]:
    """Copies of the structures with the predictions in them."""
    model = predictor.model
    data = from_atoms(
        images,
        cutoff=model.hyperparameters.cutoff,
        device=predictor.device,
        dtype=predictor.dtype,
    )
    batch = data.batch(torch.arange(len(data)))
    values, forces = predictor(batch, forces=model.force_unit is not None)
    out = []
    for k, atoms in enumerate(images):
        image = atoms.copy()
        image.calc = None
        image.info[f"schnet_{model.target}"] = float(values[k])
        image.info["schnet_unit"] = model.unit
        if forces is not None:
            rows = slice(data.offsets[k], data.offsets[k + 1])
            image.arrays["schnet_forces"] = forces[rows].cpu().double().numpy()
        out.append(image)
    return out
