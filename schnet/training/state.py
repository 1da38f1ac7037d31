"""Everything that changes while a model is trained, and its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from schnet.cost import Cost
from schnet.engine import FlatParameters
from schnet.errors import TrainingError, first_line
from schnet.models.files import read_tensors, write_tensors
from schnet.run import RunSpec
from schnet.training.adam import Adam
from schnet.training.schedule import learning_rate

log = logging.getLogger("schnet")
#: what the checkpoint of another run is renamed to
OTHER = "checkpoint.other.pt"


@dataclass
class Best:
    """The weights with the smallest validation loss so far."""

    loss: float
    step: int
    weights: Tensor


def identity(spec: RunSpec, data_digest: str, split_digest: str) -> dict:
    """What must not change between a checkpoint and its continuation.

    Scientific settings, data and split; how and where a run is executed is no part of it, nor is a
    setting with its default.
    """
    settings = spec.identity() | {"seed": spec.seed}
    return {"settings": settings, "data": data_digest, "split": split_digest}


def _differences(ours: dict, theirs) -> list[str]:
    """What differs between two identities, in words."""
    if not isinstance(theirs, dict) or theirs.keys() != ours.keys():
        return ["an earlier version of this program"]
    mine, other = ours["settings"], theirs["settings"]
    keys = sorted(k for k in mine.keys() | other.keys() if mine.get(k) != other.get(k))
    found = [f"other settings ({', '.join(keys)})"] if keys else []
    if ours["data"] != theirs["data"]:
        found.append("other data")
    if ours["split"] != theirs["split"]:
        found.append("another split")
    return found


class TrainingState:
    """Parameters, optimiser, average, random numbers, and what has been reached.

    Attributes:
        flat: all parameters of the model.
        optimiser: Adam.
        average: exponential moving average of the parameters, or None.
        generator: of the order of the training structures.
        order, position: the present epoch's order of structures, and the place in it.
        step: steps done. cost: of them.
        recent: losses since the last validation. first_loss: their mean at the first one.
        best: by kind of weights, ``raw`` or ``ema``.
        history: rows of history.csv.
        finished: whether training ended before its last step.
    """

    PLAIN = ("step", "position", "history", "recent", "first_loss", "finished")

    def __init__(self, spec: RunSpec, flat: FlatParameters):
        self.spec, self.flat = spec, flat
        self.optimiser = Adam(flat.tensor, spec.adam_beta2)
        self.average = flat.tensor.detach().clone() if spec.ema else None
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.order: Tensor | None = None
        self.position = 0
        self.step, self.cost = 0, Cost()
        self.recent: list[Tensor] = []
        self.first_loss: float | None = None
        self.best: dict[str, Best] = {}
        self.history: list[dict] = []
        self.finished = False

    # ---- steps -----------------------------------------------------------------------------------
    def next_indices(self, n: int) -> Tensor:
        """The next batch of an epoch of n structures; a last, partial one is dropped."""
        size = self.spec.batch_size
        if self.order is None or self.position + size > n:
            self.order, self.position = torch.randperm(n, generator=self.generator), 0
        indices = self.order[self.position : self.position + size]
        self.position += size
        return indices

    def update(self) -> None:
        """One step of Adam along the gradient in ``flat.tensor.grad``, and of the average."""
        spec = self.spec
        if spec.gradient_clipping:
            torch.nn.utils.clip_grad_norm_([self.flat.tensor], spec.gradient_clipping)
        self.optimiser.step(learning_rate(spec, self.step))
        self.step += 1
        if self.average is not None:
            # Warm-up: while fewer than 1 / (1 - ema) steps are done, the plain mean of all weights
            # so far. With 1 - ema from the start, the initial weights would dominate for long.
            share = max(1 - spec.ema, 1 / (self.step + 1))
            with torch.no_grad():
                self.average.lerp_(self.flat.tensor, share)

    # ---- kinds of weights ------------------------------------------------------------------------
    @property
    def weights(self) -> dict[str, Tensor]:
        """The present weights by kind: as trained (raw) and, where there is one, their average."""
        kinds = {"raw": self.flat.tensor.detach()}
        if self.average is not None:
            kinds["ema"] = self.average
        return kinds

    @property
    def selected(self) -> str:
        """Which kind becomes the model: the average where there is one."""
        return "ema" if self.average is not None else "raw"

    @contextmanager
    def using(self, weights: Tensor) -> Iterator[None]:
        """Other weights in place of the present ones, for a while."""
        kept = self.flat.tensor.detach().clone()
        with torch.no_grad():
            self.flat.tensor.copy_(weights)
        try:
            yield
        finally:
            with torch.no_grad():
                self.flat.tensor.copy_(kept)

    def keep_if_better(self, kind: str, loss: float) -> bool:
        """Keep a copy of the present weights of a kind if their loss is the smallest so far."""
        if kind in self.best and not loss < self.best[kind].loss:
            return False
        self.best[kind] = Best(loss, self.step, self.weights[kind].clone())
        return True

    # ---- checkpoints -----------------------------------------------------------------------------
    def save(self, path: Path, identity: dict) -> None:
        """Write the state to a file, complete or not at all."""
        content = {key: getattr(self, key) for key in self.PLAIN} | {
            "identity": identity,
            "cost": vars(self.cost),
            "flat": self.flat.tensor.detach(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "order": self.order,
            "best": {kind: vars(best) for kind, best in self.best.items()},
        }
        write_tensors(path, content)

    def restore(self, path: Path, identity: dict) -> bool:
        """Continue from a checkpoint, if there is one.

        That of another run (other scientific settings, data or split) is set aside, under the name
        ``OTHER``.

        Returns:
            Whether it continues.

        Raises:
            TrainingError: the checkpoint cannot be read.
        """
        path = Path(path)
        if not path.exists():
            return False
        try:
            content = read_tensors(path, self.flat.tensor.device)
            differences = _differences(identity, content.get("identity"))
            if not differences:
                self._take(content)
        except Exception as error:  # PyTorch raises anything
            raise TrainingError(
                f"{path}: cannot be read ({first_line(error)}); delete it to start anew"
            ) from error
        if differences:
            path.replace(path.with_name(OTHER))
            reason = " and ".join(differences)
            log.warning("%s: of a training with %s; now %s, starting anew", path, reason, OTHER)
            return False
        log.info("continuing from step %s", f"{self.step:,}")
        return True

    def _take(self, content: dict) -> None:
        """Become what a checkpoint holds."""
        for key in self.PLAIN:
            setattr(self, key, content[key])
        self.cost = Cost(**{name: float(spent) for name, spent in content["cost"].items()})
        self.optimiser.load_state_dict(content["optimiser"])
        with torch.no_grad():
            self.flat.tensor.copy_(content["flat"])
        if (content["average"] is None) != (self.average is None):
            raise ValueError("the average of the weights is missing")
        self.average = content["average"]
        self.best = {kind: Best(**best) for kind, best in content["best"].items()}
        # random numbers are drawn by the CPU, whatever the device
        self.generator.set_state(content["generator"].cpu())
        torch.set_rng_state(content["torch_rng"].cpu())
        self.order = None if content["order"] is None else content["order"].cpu()
