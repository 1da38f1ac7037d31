"""A network, fitted by gradient steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from schnet.data.structures import Structures
from schnet.engine import inference
from schnet.models import read_model_file
from schnet.models.files import make_model
from schnet.record import check_origin
from schnet.run import MODEL_FILE, RunSpec, read_finished
from schnet.training.loop import train

HISTORY = True
FORCES = True


def fit(run: RunSpec, out: Path, *, threads: int, device: str) -> None:
    """Train; see schnet.training.loop."""
    train(run, out, threads=threads, device=device)


class Predictor:
    """A trained network, computed by the fastest engine that applies."""

    def __init__(self, model, alternatives: tuple[str, ...], **options):
        """Args: the model, names of other weights in its file, options of the engine."""
        # test data may hold elements that the training data did not have; their errors count
        self.predictor = inference.Predictor(model, any_element=True, **options)
        self.alternatives = alternatives
        self.cutoff = model.hyperparameters.cutoff
        self.forces = model.hyperparameters.readout != "dipole"
        self.device, self.dtype = self.predictor.device, self.predictor.dtype

    @property
    def name(self) -> str:
        """The engine that has computed the last predictions."""
        engine = self.predictor.engine
        return "none" if engine is None else engine.name

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """The property [B] float64 and, when asked for, forces [N, 3] float32."""
        values, parts = [], []
        size = self.predictor.model.evaluation_batch
        for part in torch.arange(len(structures)).split(size):
            value, force = self.predictor(structures.batch(part), forces)
            values.append(value.cpu())
            if force is not None:
                parts.append(force.float().cpu())
        return torch.cat(values).numpy(), torch.cat(parts).numpy() if forces else None


def load(
    folder: Path, *, threads: int, device: str, engine: str, weights: str | None = None
) -> Predictor:
    """The trained network of a run; see schnet.methods.load.

    Raises:
        ModelError: model.pt is that of another run.
    """
    file = folder / MODEL_FILE
    torch.backends.cuda.matmul.allow_tf32 = False  # a training in this process may have set it
    content = read_model_file(file)
    check_origin(file, content["provenance"], read_finished(folder))
    alternatives = tuple(content["alternatives"])
    model = make_model(content, file, weights=weights)
    return Predictor(model, alternatives, threads=threads, device=device, engine=engine)
