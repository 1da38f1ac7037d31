"""Train one model: a step-based loop that can be killed at any moment and continues to the same result."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from schnet import provenance
from schnet.data.splits import load_split, split_digest
from schnet.data.store import Store
from schnet.data.structures import Room, Structures, load
from schnet.engine import FlatParameters, make_engine
from schnet.engine.table import TableEngine
from schnet.errors import ConfigError, TrainingError
from schnet.files import atomic, write_text, write_yaml
from schnet.models import build, save_model
from schnet.training.graph import GraphedGradient
from schnet.training.spec import RunSpec

log = logging.getLogger("schnet")
EVALUATION_BATCH = 256
DIVERGED = 1e6  # times the first interval's loss


class Interrupted(SystemExit):
    """SIGTERM or SIGINT: a checkpoint was written, the next start continues."""


def learning_rate(spec: RunSpec, step: int) -> float:
    """Learning rate of a step (0-based)."""
    lr, final = spec.learning_rate, spec.learning_rate_final
    if spec.schedule == "exponential":
        return lr * 0.96 ** (step / 100_000)
    if spec.schedule == "short":
        progress = max(0.0, (step / spec.steps - 0.75) / 0.25)
        return lr * (final / lr) ** progress
    start, period = 0, spec.sgdr_period
    while step >= start + period:
        start, period = start + period, 2 * period
    return final + 0.5 * (lr - final) * (1 + math.cos(math.pi * (step - start) / period))


def loss_function(spec: RunSpec, batch, energy, forces, target, target_forces):
    """The training loss of a batch: squared error, or Eq. 5 for energies and forces (see RunSpec.loss)."""
    squared = (energy - target).square()
    if forces is None:
        return squared.mean() if spec.loss == "paper" else squared.sum() / 2
    difference = (forces - target_forces).square().sum(1)
    if spec.loss == "tf_code":
        return (spec.rho * squared.sum() + difference.sum()) / 2
    per_atom = difference / batch.n_atoms.to(difference.dtype)[batch.structure]
    return (spec.rho * squared.sum() + per_atom.sum()) / len(target)


def normalise(model, data: Structures, spec: RunSpec, atomrefs):
    """Set scale and offsets from the training split: mean and standard deviation of the target without
    atom references, per atom for summed properties (as in the authors' code). With ``output_scale: forces``
    the scale is the standard deviation of the force components instead (times 1 Å)."""
    target = data.properties[spec.target]
    readout = model.hyperparameters.readout
    refs = torch.zeros(100, dtype=torch.float64, device=target.device)
    if atomrefs is not None and spec.atomrefs and readout == "sum":
        refs = torch.as_tensor(atomrefs, dtype=torch.float64, device=target.device)
    if readout == "dipole":
        return model.set_offsets(scale=1.0, mean=0.0)
    counts = data.counts.to(torch.float64)
    if readout == "sum":
        structure = torch.repeat_interleave(torch.arange(len(data), device=target.device), data.counts)
        total = torch.zeros_like(target).index_add(0, structure, refs[data.atomic_numbers.long()])
        values = (target - total) / counts
    else:
        values = target
    if spec.output_scale == "forces" and spec.forces:
        values_scale = data.properties[spec.forces]
    else:
        values_scale = values
    std = float(values_scale.std(correction=0)) if len(values) > 1 else 0.0
    model.set_offsets(scale=std if std > 1e-12 else 1.0, mean=float(values.mean()), atomrefs=refs)


class Trainer:
    """Everything that a training keeps; ``state()`` and ``restore()`` are the checkpoint."""

    def __init__(self, spec: RunSpec, out, *, threads: int = 1, device: str = "cpu"):
        self.spec, self.out, self.device = spec, Path(out), torch.device(device)
        provenance.code()  # of the code that runs, not of what the files hold at the end
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device: cuda asked for, but PyTorch finds no GPU; set device: cpu or auto")
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec.tf32
        store = Store(spec.data)
        self.store, self.threads = store, threads
        parts = load_split(spec.split, store)
        self.split_digest = split_digest(spec.split)
        names = [spec.target] + ([spec.forces] if spec.forces else [])
        cutoff = spec.model.get("cutoff")
        limit = spec.validation_limit
        validation = parts["validation"][:limit] if limit else parts["validation"]
        if len(parts["train"]) < spec.batch_size:
            raise ConfigError(f"{spec.split}: {len(parts['train'])} training structures, less than one batch of {spec.batch_size}")
        self.train = load(store, parts["train"], names, cutoff=cutoff, device=self.device)
        self.validation = load(store, validation, names, cutoff=cutoff, device=self.device)
        self.train_ids = parts["train"]

        torch.manual_seed(spec.seed)
        self.model = build(spec.architecture, spec.model).to(self.device)
        normalise(self.model, self.train, spec, store.atomrefs.get(spec.target))
        self.flat = FlatParameters(self.model)
        lo, hi = self.train.distance_range()
        lo2, hi2 = self.validation.distance_range()
        lo, hi = min(lo, lo2), max(hi, hi2)
        self.engine = make_engine(self.model, self.flat, (lo, hi), engine=spec.engine, threads=threads, device=self.device)
        if spec.compile:
            if not self.engine.name.startswith("reference") or spec.forces:
                raise ConfigError("compile: applies to engine: reference without forces only (no double backward through compiled code)")
            self.engine.model = torch.compile(self.model)
        self.gradient = self._gradient
        if self.device.type == "cuda" and isinstance(self.engine, TableEngine):
            self.engine.checked = False  # the range is that of these very structures; asking would wait for the GPU
            self.gradient = GraphedGradient(self._gradient, self.flat, self.train, spec.batch_size, (lo, hi))
        self.residual = {d: self._residual(d) for d in (self.train, self.validation)}
        self.optimiser = torch.optim.Adam([self.flat.tensor], lr=spec.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.step, self.seconds, self.order, self.position = 0, 0.0, None, 0
        self.average = self.flat.tensor.detach().clone() if spec.ema else None
        self.best: dict[str, dict] = {}
        self.history: list[dict] = []
        self.recent, self.first_loss, self.finished = [], None, False

    def _residual(self, data):
        """The target without the model's offset, in float32 after a float64 difference."""
        parts = []
        for part in torch.arange(len(data)).split(4096):
            parts.append(data.properties[self.spec.target][part] - self.model.offset(data.batch(part)))
        residual = torch.cat(parts).float()
        forces = data.properties[self.spec.forces].float() if self.spec.forces else None
        return residual, forces

    # ---- one step ----------------------------------------------------------------------------
    def next_indices(self):
        """The next batch of the epoch; a last, partial batch is dropped."""
        n, b = len(self.train), self.spec.batch_size
        if self.order is None or self.position + b > n:
            self.order, self.position = torch.randperm(n, generator=self.generator), 0
        indices = self.order[self.position : self.position + b]
        self.position += b
        return indices

    def _gradient(self, indices, room: Room | None = None):
        """Write the gradient of the loss of training structures and return the loss; room: see Structures.batch."""
        batch = self.train.batch(indices, room)
        target, target_forces = self.residual[self.train]
        target = target[self.train.on_device(indices)]
        if target_forces is not None:
            target_forces = target_forces[batch.rows]
        self.flat.tensor.grad.zero_()
        energy, forces = self.engine(batch, self.spec.forces is not None)
        if room:  # the last structure only fills up
            energy = energy[: len(target)]
            if forces is not None:
                target_forces = target_forces.masked_fill((batch.structure == len(target))[:, None], 0)
        loss = loss_function(self.spec, batch, energy, forces, target, target_forces)
        loss.backward()
        return loss.detach()

    def train_step(self):
        spec = self.spec
        indices = self.next_indices()
        value = self.gradient(indices)
        if self.device.type == "cpu" or self.step % 100 == 0:
            self._check(float(value), indices)
        if spec.gradient_clipping:
            torch.nn.utils.clip_grad_norm_([self.flat.tensor], spec.gradient_clipping)
        self.optimiser.param_groups[0]["lr"] = learning_rate(spec, self.step)
        self.optimiser.step()
        self.step += 1
        if self.average is not None:
            with torch.no_grad():
                self.average.lerp_(self.flat.tensor, max(1 - spec.ema, 1 / (self.step + 1)))
        self.recent.append(value)

    def _check(self, value: float, indices):
        if math.isfinite(value) and (self.first_loss is None or value < DIVERGED * max(self.first_loss, 1e-12)):
            return
        ids = self.store.ids(self.train_ids[indices[:5].numpy()])
        what = "is not a number" if not math.isfinite(value) else f"diverged to {value:.3g}"
        raise TrainingError(
            f"{self.out}: the loss {what} at step {self.step}, batch of {', '.join(ids)}, …; lower the learning rate or set gradient_clipping"
        )

    # ---- validation --------------------------------------------------------------------------
    def evaluate(self, data: Structures) -> dict[str, float]:
        """Loss and mean absolute errors of the present parameters on a data set in memory."""
        spec = self.spec
        self.engine.refresh()
        target, target_forces = self.residual[data]
        sums = dict.fromkeys(("loss", "energy", "forces", "bias"), 0.0)
        components = 0
        for part in torch.arange(len(data)).split(EVALUATION_BATCH):
            batch = data.batch(part)
            energy, forces = self.engine.evaluate(batch, spec.forces is not None)
            f = target_forces[batch.rows] if target_forces is not None else None
            loss = loss_function(spec, batch, energy.float(), forces, target[part], f)
            sums["loss"] += float(loss) * (1 if spec.loss == "tf_code" else len(part))
            error = energy.double() - target[part].double()
            sums["energy"] += float(error.abs().sum())
            sums["bias"] += float(error.sum())
            if f is not None:
                sums["forces"] += float((forces - f).double().abs().sum())
                components += f.numel()
        n = len(data)
        return {
            "loss": sums["loss"] / n,
            "energy": sums["energy"] / n,
            "forces": sums["forces"] / components if components else math.nan,
            "bias": sums["bias"] / n,
        }

    def _with(self, weights, function, *args):
        """function(*args) with other weights in place of the present ones."""
        kept = self.flat.tensor.detach().clone()
        with torch.no_grad():
            self.flat.tensor.copy_(weights)
        try:
            return function(*args)
        finally:
            with torch.no_grad():
                self.flat.tensor.copy_(kept)

    def validate(self) -> bool:
        """Evaluate raw (and averaged) weights, keep the best of each; True when the best one improved."""
        train_loss = float(torch.stack(self.recent).double().mean()) if self.recent else math.nan
        if not math.isfinite(train_loss) and self.recent:
            self._check(train_loss, self.order[:5])
        if self.first_loss is None:
            self.first_loss = train_loss
        self.recent = []
        row = {"step": self.step, "learning_rate": learning_rate(self.spec, max(0, self.step - 1)), "train_loss": train_loss}
        improved = False
        sets = {"raw": self.flat.tensor.detach()} | ({"ema": self.average} if self.average is not None else {})
        for name, weights in sets.items():
            scores = self._with(weights, self.evaluate, self.validation)
            row |= {f"{name}_{k}": v for k, v in scores.items() if k != "bias" and (k != "forces" or self.spec.forces)}
            if name not in self.best or scores["loss"] < self.best[name]["loss"]:
                self.best[name] = {"loss": scores["loss"], "step": self.step, "weights": weights.detach().clone()}
                improved = improved or name == self.selected
        row["seconds"] = round(self.seconds, 2)
        self.history.append(row)
        self._write_history()
        return improved

    @property
    def selected(self) -> str:
        """Which weights become the model: the average where there is one."""
        return "ema" if self.average is not None else "raw"

    def _write_history(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.history[0]))
        writer.writeheader()
        for row in self.history:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        write_text(self.out / "history.csv", text.getvalue())

    # ---- checkpoints -------------------------------------------------------------------------
    def settings(self) -> str:
        """The run without its paths, as text that does not depend on the order of keys."""
        return json.dumps({k: v for k, v in self.spec.to_dict().items() if k not in ("data", "split", "scale")}, sort_keys=True)

    def identity(self) -> str:
        """What must not change between a checkpoint and its continuation."""
        return f"{self.settings()} {self.store.digest} {self.split_digest}"

    def state(self) -> dict:
        return {
            "identity": self.identity(),
            "step": self.step,
            "seconds": self.seconds,
            "flat": self.flat.tensor.detach(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "order": self.order,
            "position": self.position,
            "best": self.best,
            "history": self.history,
            "recent": self.recent,
            "first_loss": self.first_loss,
            "finished": self.finished,
        }

    def save_checkpoint(self):
        with atomic(self.out / "checkpoint.pt") as temporary, open(temporary, "wb") as f:
            torch.save(self.state(), f)

    def restore(self) -> bool:
        """Continue from the checkpoint in the run directory, if there is one.

        Raises TrainingError when it was written by another run (other settings, data or split).
        """
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise TrainingError(f"{path}: cannot be read ({str(error).splitlines()[0][:100]}); delete it to start anew") from error
        if state.get("identity") != self.identity():
            raise TrainingError(f"{path}: belongs to a training with other settings, data or split; delete it to start anew")
        self.optimiser.load_state_dict(state["optimiser"])
        with torch.no_grad():
            self.flat.tensor.copy_(state["flat"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_rng"].cpu())
        for key in ("step", "seconds", "average", "position", "best", "history", "recent", "first_loss", "finished"):
            setattr(self, key, state[key])
        self.order = None if state["order"] is None else state["order"].cpu()
        log.info("continuing from step %s", f"{self.step:,}")
        return True

    # ---- the whole run -----------------------------------------------------------------------
    def run(self):
        """Train to the end (or until patience runs out) and write model.pt, history.csv and run.yaml."""
        spec = self.spec
        self.out.mkdir(parents=True, exist_ok=True)
        self.restore()
        log.info(
            "%s, %s: N = %s, %s steps, %s parameters, engine %s, %s",
            spec.dataset, spec.target, f"{len(self.train):,}", f"{spec.steps:,}", f"{self.flat.tensor.numel():,}", self.engine.name, self.device,
        )  # fmt: skip
        stop = []
        previous = {s: signal.signal(s, lambda number, _: stop.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
        terminal = sys.stderr.isatty()
        bar = tqdm(total=spec.steps, initial=self.step, unit="step", disable=not terminal, smoothing=0.05)
        last_log = time.monotonic()
        try:
            while self.step < spec.steps and not self.finished:
                begin = time.monotonic()
                self.train_step()
                end_of_interval = self.step % spec.validation_interval == 0 or self.step == spec.steps
                if end_of_interval:
                    improved = self.validate()
                    row = self.history[-1]
                    shown = {k.removeprefix(self.selected + "_"): row[k] for k in row if k.startswith(self.selected)}
                    message = ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
                    bar.set_postfix_str(message)
                    if not terminal and time.monotonic() - last_log > 10:
                        last_log = time.monotonic()
                        log.info("step %s of %s: %s", f"{self.step:,}", f"{spec.steps:,}", message)
                    if spec.patience and not improved and self.step - self.best[self.selected]["step"] >= spec.patience:
                        log.info("no improvement for %s steps: stopped at step %s", f"{spec.patience:,}", f"{self.step:,}")
                        self.finished = True
                bar.update(1)
                self.seconds += time.monotonic() - begin
                if self.step % spec.checkpoint_interval == 0 and self.step < spec.steps:
                    self.save_checkpoint()
                if stop:
                    self.save_checkpoint()
                    log.warning("signal %s: checkpoint written at step %s; run again to continue", stop[0], f"{self.step:,}")
                    raise Interrupted(128 + stop[0])
        finally:
            bar.close()
            for s, handler in previous.items():
                signal.signal(s, handler)
        # kept until the run is evaluated: a finished training whose outputs get lost is back in seconds
        self.save_checkpoint()
        self.finish()

    def finish(self):
        spec = self.spec
        chosen = self.best[self.selected]
        if spec.forces and spec.rho == 0:
            # the integration constant does not enter a force-only loss: fit it on the training set
            for best in self.best.values():
                best["bias"] = self._with(best["weights"], self.evaluate, self.train)["bias"]
        else:
            for best in self.best.values():
                best["bias"] = 0.0
        mean = float(self.model.mean)
        states = {}
        for name, best in self.best.items():
            with torch.no_grad():
                self.flat.tensor.copy_(best["weights"])
            state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            per_atom = best["bias"] / float(self.train.counts.double().mean()) if self.model.hyperparameters.readout == "sum" else best["bias"]
            state["mean"] = torch.tensor(mean - per_atom, dtype=torch.float64)
            states[name] = state
        store = self.store
        self.model.load_state_dict(states[self.selected])
        self._write_history()
        about = provenance.collect()
        run = {
            "run": spec.to_dict(),
            "result": {
                "steps": self.step,
                "best_step": chosen["step"],
                "best_validation_loss": chosen["loss"],
                "weights": self.selected,
                "parameters": self.flat.tensor.numel(),
                "training_seconds": round(self.seconds, 1),
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "engine": self.engine.name,
                "device": str(self.device),
                "threads": self.threads,
                "n_train": len(self.train),
                "n_validation": len(self.validation),
            },
            "data": {
                "digest": store.digest,
                "split_digest": self.split_digest,
                "sources": store.sources,
                "notes": store.notes,
            },
            "provenance": about,
        }
        prop = store.properties[spec.target]
        save_model(
            self.out / "model.pt",
            self.model,
            target=spec.target,
            unit=prop.unit,
            force_unit=store.properties[spec.forces].unit if spec.forces else None,
            # only what is the same for the same run: model.pt is reproducible bit for bit
            provenance={"run": self.settings(), "data": store.digest, "split": self.split_digest, "steps": self.step},
            alternatives={k: v for k, v in states.items() if k != self.selected},
        )
        write_yaml(self.out / "run.yaml", run)
        log.info("best step %s, validation loss %.5g, %.0f s", f"{chosen['step']:,}", chosen["loss"], self.seconds)


def train(spec: RunSpec, out, *, threads: int = 1, device: str = "auto"):
    """Train ``spec`` into the directory ``out``; continues by itself after an interruption."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    np.random.seed(spec.seed % 2**32)
    Trainer(spec, out, threads=threads, device=device).run()
