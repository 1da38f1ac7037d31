"""Predictions for any file ASE can read."""

from __future__ import annotations

import torch
from ase.io import read, write

from schnet.data.structures import from_atoms
from schnet.engine.inference import Predictor
from schnet.errors import DataError
from schnet.files import atomic
from schnet.models import load_model

BATCH = 64


def predict_file(model_path, structures, output, *, threads: int = 1, device: str = "cpu"):
    """Write the structures with ``schnet_TARGET`` (and ``schnet_forces``) in the model's units to an extended xyz file."""
    model = load_model(model_path)
    try:
        images = read(structures, index=":")
    except Exception as error:
        raise DataError(f"{structures}: cannot be read by ASE ({type(error).__name__}: {error})") from error
    predictor = Predictor(model, threads=threads, device=device)
    cutoff = model.hyperparameters.cutoff
    forces_wanted = model.force_unit is not None
    out = []
    for at in range(0, len(images), BATCH):
        chunk = images[at : at + BATCH]
        data = from_atoms(chunk, cutoff=cutoff, device=predictor.device, dtype=predictor.dtype)
        values, forces = predictor(data.batch(torch.arange(len(data))), forces_wanted)
        for k, atoms in enumerate(chunk):
            image = atoms.copy()
            image.calc = None
            image.info[f"schnet_{model.target}"] = float(values[k])
            image.info["schnet_unit"] = model.unit
            if forces is not None:
                a, b = data.offsets[k], data.offsets[k + 1]
                image.arrays["schnet_forces"] = forces[a:b].cpu().double().numpy()
            out.append(image)
    with atomic(output) as temporary:
        write(temporary, out, format="extxyz")
    print(f"{output}: {len(out):,} structures, {model.target} in {model.unit}")
