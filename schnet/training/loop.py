"""Train one model: steps that can be interrupted at any moment and continue to the same result."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from schnet import provenance
from schnet.cost import Cost
from schnet.device import choose_device
from schnet.engine import FlatParameters, ReferenceEngine, check_threads, make_engine
from schnet.engine.table import TableEngine
from schnet.errors import ConfigError, TrainingError
from schnet.models import build, check_hyperparameters
from schnet.record import open_inputs, write_run_file
from schnet.run import RunSpec
from schnet.training.graph import GraphedGradient
from schnet.training.objective import Objective, make_examples, normalise
from schnet.training.recorder import Recorder, write_history
from schnet.training.result import final_weights, result_of, write_model
from schnet.training.schedule import learning_rate
from schnet.training.state import TrainingState, identity
from schnet.training_range import training_range

log = logging.getLogger("schnet")
DIVERGED = 1e6  # times the first interval's loss
LOOK_INTERVAL = 100  # steps after which the loss on a GPU is looked at


class Interrupted(SystemExit):
    """SIGTERM or SIGINT: a checkpoint was written, the next start continues."""


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """A list to which SIGTERM and SIGINT add their numbers instead of ending the process."""
    caught: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Trainer:
    """One training: ``run`` is the loop, ``train_step`` and ``validate`` what happens in it.

    Attributes:
        spec, inputs: settings, data and split.
        model, engine: the network and what computes it.
        training, validation: examples.
        objective: the loss; gradient: writes its gradient for the training examples of given
            indices, as one CUDA graph where that is possible.
        state: everything that changes.
    """

    def __init__(self, spec: RunSpec, out, *, threads: int = 1, device: str = "cpu"):
        """Read the data and build the model; nothing is written yet.

        Raises:
            ConfigError, DataError: settings, data and split do not fit together.
        """
        self.spec, self.out = spec, Path(out)
        self.threads, self.device = check_threads(threads), torch.device(choose_device(device))
        provenance.code()  # of the code that runs, not of what the files hold at the end
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec.tf32
        self.inputs = open_inputs(spec)
        training, validation = self._load()
        torch.manual_seed(spec.seed)
        self.model = build(spec.architecture, spec.model).to(self.device)
        normalise(self.model, training, spec, self.inputs.store.atomrefs.get(spec.target))
        self.model.set_elements(training.atomic_numbers)
        self.flat = FlatParameters(self.model)
        ranges = training.distance_range(), validation.distance_range()
        self.distances = min(r[0] for r in ranges), max(r[1] for r in ranges)
        self.engine = make_engine(
            self.model,
            self.flat,
            self.distances,
            engine=spec.engine,
            threads=threads,
            device=self.device,
        )
        if spec.compile:
            self._compile()
        self.training = make_examples(self.model, training, spec)
        self.validation = make_examples(self.model, validation, spec)
        self.objective = Objective(spec, self.flat, self.engine)
        gradient = partial(self.objective.gradient, self.training)
        self.gradient: Callable[[Tensor], Tensor] = gradient
        if self.device.type == "cuda" and isinstance(self.engine, TableEngine):
            # the range is that of these very structures; asking would wait for the GPU
            self.engine.checked = False
            self.gradient = GraphedGradient(
                gradient, self.flat, training, spec.batch_size, self.distances
            )
        self.state = TrainingState(spec, self.flat)

    def _load(self):
        """Training and validation structures in the device's memory."""
        spec, parts = self.spec, self.inputs.parts
        if len(parts["train"]) < spec.batch_size:
            raise ConfigError(
                f"{spec.split}: {len(parts['train'])} training structures, "
                f"less than one batch of {spec.batch_size}"
            )
        names = [spec.target] + ([spec.forces] if spec.forces else [])
        cutoff = check_hyperparameters(spec.architecture, spec.model).cutoff
        if cutoff is None and self.inputs.store.periodic:
            raise ConfigError(f"{spec.data}: has periodic structures; the model needs a cutoff")
        where = {"cutoff": cutoff, "device": self.device}
        training = self.inputs.load(parts["train"], names, **where)
        if cutoff is not None and not training.pair_count.any():
            raise ConfigError(
                f"{spec.data}: no two atoms of a training structure are closer than the cutoff of "
                f"{cutoff:g} Å, so nothing but the elements could be learned; are positions in Å?"
            )
        validation = parts["validation"][: spec.validation_limit]
        return training, self.inputs.load(validation, names, **where)

    def _compile(self) -> None:
        if not isinstance(self.engine, ReferenceEngine) or self.spec.forces:
            raise ConfigError(
                "compile: applies to engine: reference without forces only "
                "(no double backward through compiled code)"
            )
        self.engine.model = torch.compile(self.model)

    @property
    def checkpoint(self) -> Path:
        """The file that ``run`` continues from."""
        return self.out / "checkpoint.pt"

    @property
    def identity(self) -> dict:
        """What a checkpoint of this training must have been written by."""
        return identity(self.spec, self.inputs.store.digest, self.inputs.split_digest)

    # ---- one step --------------------------------------------------------------------------------
    def train_step(self) -> Tensor:
        """One batch, one step; returns the loss before it.

        Raises:
            TrainingError: the loss is not a number, or a million times that of the beginning.
        """
        state = self.state
        indices = state.next_indices(len(self.training))
        loss = self.gradient(indices)
        # reading the loss of a GPU waits for it
        if self.device.type == "cpu" or state.step % LOOK_INTERVAL == 0:
            self._check(float(loss), indices)
        state.update()
        state.recent.append(loss)
        return loss

    def _check(self, loss: float, indices: Tensor) -> None:
        first = self.state.first_loss
        if not math.isfinite(loss):
            what = "is not a number"
        elif first is not None and loss >= DIVERGED * max(first, 1e-12):
            what = f"diverged to {loss:.3g}"
        else:
            return
        numbers = self.inputs.parts["train"][indices[:5].numpy()]
        ids = ", ".join(self.inputs.store.ids(numbers))
        raise TrainingError(
            f"{self.out}: the loss {what} at step {self.state.step}, batch of {ids}, …; "
            "lower the learning rate or set gradient_clipping"
        )

    def validate(self) -> bool:
        """Add a row to the history, keep the best weights of every kind.

        Returns:
            Whether the kind that becomes the model has improved.
        """
        state = self.state
        train_loss = math.nan
        if state.recent and state.order is not None:
            train_loss = float(torch.stack(state.recent).double().mean())
            if not math.isfinite(train_loss):
                self._check(train_loss, state.order)
        if state.first_loss is None:
            state.first_loss = train_loss
        state.recent = []
        row = {
            "step": state.step,
            "learning_rate": learning_rate(self.spec, max(0, state.step - 1)),
            "train_loss": train_loss,
        }
        improved = False
        shown = ("loss", "energy", "forces") if self.spec.forces else ("loss", "energy")
        for kind, weights in state.weights.items():
            with state.using(weights):
                errors = self.objective.errors(self.validation)
            row |= {f"{kind}_{key}": errors[key] for key in shown}
            better = state.keep_if_better(kind, errors["loss"])
            improved = improved or (better and kind == state.selected)
        row["seconds"] = round(state.cost.seconds, 2)
        state.history.append(row)
        return improved

    # ---- the whole run ---------------------------------------------------------------------------
    def run(self) -> None:
        """Train to the end, or until patience runs out; continues from a checkpoint.

        Writes model.pt, history.csv and run.yaml. The checkpoint is kept until the run is
        evaluated: a finished training whose outputs get lost is back in seconds.

        Raises:
            Interrupted: after SIGTERM or SIGINT, with a checkpoint written.
            TrainingError: the loss diverged, or the checkpoint cannot be read.
        """
        spec, state = self.spec, self.state
        self.out.mkdir(parents=True, exist_ok=True)
        state.restore(self.checkpoint, self.identity)
        log.info(
            "%s, %s: N = %s, %s steps, %s parameters, engine %s, %s",
            spec.dataset,
            spec.target,
            f"{len(self.training):,}",
            f"{spec.steps:,}",
            f"{self.flat.tensor.numel():,}",
            self.engine.name,
            self.device,
        )
        with (
            caught_signals() as caught,
            Recorder(self.out / "history.csv", spec.steps, state.step) as recorder,
        ):
            while state.step < spec.steps and not state.finished:
                begin = Cost.now()
                self.train_step()
                if state.step % spec.validation_interval == 0 or state.step == spec.steps:
                    improved = self.validate()
                    recorder.validated(state.history, state.selected)
                    state.finished = not improved and self._patience_ran_out()
                recorder.advance()
                state.cost += Cost.now() - begin
                if state.step % spec.checkpoint_interval == 0 and state.step < spec.steps:
                    state.save(self.checkpoint, self.identity)
                if caught:
                    self._interrupt(caught[0])
        state.save(self.checkpoint, self.identity)
        self._finish()

    def _patience_ran_out(self) -> bool:
        state, patience = self.state, self.spec.patience
        if not patience or state.step - state.best[state.selected].step < patience:
            return False
        log.info("no improvement for %s steps: stopped at %s", f"{patience:,}", f"{state.step:,}")
        return True

    def _interrupt(self, number: int) -> None:
        self.state.save(self.checkpoint, self.identity)
        log.warning(
            "signal %s: checkpoint written at step %s; run again to continue",
            number,
            f"{self.state.step:,}",
        )
        raise Interrupted(128 + number)

    def _finish(self) -> None:
        spec, state, inputs = self.spec, self.state, self.inputs
        weights = final_weights(spec, self.model, state, self.objective, self.training)
        write_history(self.out / "history.csv", state.history)
        path = self.out / "model.pt"
        trained_on = training_range(self.training.structures, self.distances)
        write_model(path, spec, self.model, inputs, state, weights, trained_on)
        result = result_of(state, self.engine)
        write_run_file(self.out, spec, inputs, result, threads=self.threads, device=self.device)
        log.info(
            "best step %s, validation loss %.5g, %.0f s",
            f"{result['best_step']:,}",
            result["best_validation_loss"],
            state.cost.seconds,
        )


def train(spec: RunSpec, out, *, threads: int = 1, device: str = "auto") -> None:
    """Train a run into a directory; continues by itself after an interruption.

    Args:
        spec: its settings.
        out: the directory; gets model.pt, history.csv, run.yaml and, until evaluated, a checkpoint.
        threads: of the CPU.
        device: cpu, cuda, or auto for a GPU where there is one.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    np.random.seed(spec.seed % 2**32)
    Trainer(spec, out, threads=threads, device=device).run()
