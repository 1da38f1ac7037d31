"""What is asked for of a model of one's own data, and what is chosen from the data."""

from __future__ import annotations

import logging
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from schnet.data.own import convert_file
from schnet.data.store import Store
from schnet.errors import ConfigError, DataError, SchNetError
from schnet.files import read_yaml, scratch
from schnet.plan.timing import seconds_per_step
from schnet.run import RunSpec, make_spec

log = logging.getLogger("schnet")
CUTOFF = 5.0  # Å, of crystals (Sec. III B) and of molecules with more atoms than LARGE
LARGE = 100
BATCH = 32
AT_MOST = 1000  # validation structures
SETTINGS = "settings.yaml"  # in the folder: the run, to be changed and trained again
#: part of the time that steps take; validation, evaluation and pictures take the rest
STEPS_SHARE = 0.8
#: part of a run over which weights are averaged (fewer steps than that of a long run)
AVERAGED = 1 / 20


@dataclass(frozen=True)
class Wishes:
    """What is asked for; None: chosen from the data.

    Attributes:
        target, forces, unit: see `schnet.data.own.convert_file`.
        n_train, n_validation: structures; the others are the test part.
        steps: of training. seconds: what training may take instead.
        cutoff: in Å.
        model: hyper-parameters. architecture: of the model.
        seed: of split, weights and batches.

    Raises:
        ConfigError: a number out of range, or a value of another type.
    """

    target: str | None = None
    forces: str | None = None
    unit: str | None = None
    n_train: int | None = None
    n_validation: int | None = None
    steps: int | None = None
    seconds: float = 600.0
    cutoff: float | None = None
    architecture: str = "schnet"
    model: dict | None = None
    seed: int = 0

    def __post_init__(self):
        for name, least in {"n_train": 1, "n_validation": 1, "steps": 1, "seed": 0}.items():
            value = getattr(self, name)
            if value is None and name != "seed":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}: {value!r} is no whole number from {least}")
        for name in ("seconds", "cutoff"):
            value = getattr(self, name)
            if value is None and name == "cutoff":
                continue
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ConfigError(f"{name}: {value!r} is not a positive number")
        if not isinstance(self.model, dict | None):
            raise ConfigError(f"model: {self.model!r} is no mapping of hyper-parameters")


def converted(source, out: Path, wishes: Wishes) -> tuple[Path, str, str | None]:
    """The converted data set, and the names of what is learned."""
    if not isinstance(source, str | Path) or Path(source).is_dir():
        raise ConfigError(f"{source}: one file with structures is expected")
    if str(source).endswith((".h5", ".hdf5")):
        return _store(source, wishes)
    data = out / "data.h5"
    try:
        with scratch(data) as converted:
            target, forces = convert_file(
                source,
                converted,
                target=wishes.target,
                forces=wishes.forces,
                unit=wishes.unit,
                cutoff=wishes.cutoff or CUTOFF,
            )
            if not data.exists():
                converted.replace(data)
            elif not _same_data(data, converted):
                raise ConfigError(f"{data}: holds other data; choose another folder or delete it")
    except SchNetError:
        with suppress(OSError):  # only an empty folder goes
            out.rmdir()
        raise
    return data, target, forces


def _same_data(one: Path, other: Path) -> bool:
    """Whether both are data sets, and the same."""
    try:
        return Store(one).digest == Store(other).digest
    except DataError:
        return False


def _store(source, wishes: Wishes) -> tuple[Path, str, str | None]:
    """A data set that is converted already; its units are in it."""
    if wishes.unit is not None:
        raise ConfigError(f"--unit: {source} is a converted data set, which has its units")
    store = Store(source)
    target = wishes.target
    if target is None:
        energies = [name for name, p in store.properties.items() if p.kind == "energy"]
        target = energies[0] if energies else next(iter(store.properties))
    store.require(target)
    forces = None if wishes.forces == "none" else wishes.forces or store.forces_of(target)
    return Path(source), target, forces


def settings(store: Store, target: str, forces: str | None, wishes: Wishes) -> RunSpec:
    """The run: sizes, model and schedule that fit the data."""
    n = len(store)
    n_validation = wishes.n_validation or min(AT_MOST, n // 10)
    n_train = wishes.n_train or n - n_validation - n // 10
    if min(n_train, n_validation) < 1 or n_train + n_validation >= n:
        raise ConfigError(
            f"{store.path}: {n:,} structures are too few for {n_train:,} to train, "
            f"{n_validation:,} to validate and at least one to test"
        )
    model: dict = {"n_interactions": 3} if wishes.architecture == "schnet" else {}
    cutoff = wishes.cutoff
    if cutoff is None and (store.periodic or np.diff(store.offsets).max() > LARGE):
        cutoff = CUTOFF
    if cutoff is not None:
        model["cutoff"] = cutoff
        if wishes.architecture == "schnet":
            model["r_max"] = cutoff
    unit = store.properties[target].unit
    if store.properties[target].kind != "energy" or unit.endswith("/atom"):
        model["readout"] = "mean"
    settings = {
        "dataset": store.name,
        "target": target,
        "forces": forces,
        "architecture": wishes.architecture,
        "model": model | (wishes.model or {}),
        "n_train": n_train,
        "n_validation": n_validation,
        "split_seed": wishes.seed,
        "seed": wishes.seed,
        "protocol": "short",
        "batch_size": max(1, min(BATCH, n_train // 4)),
    }
    return make_spec(settings, "schnet train --data")


def as_begun(spec: RunSpec, out: Path, wishes: Wishes) -> RunSpec:
    """The run that an earlier call began in the folder.

    Raises:
        ConfigError: it is not what is asked for now; nothing in the folder is changed.
    """
    file = out / SETTINGS
    begun = make_spec(read_yaml(file), str(file))
    steps = begun.steps if wishes.steps is None else wishes.steps
    asked, there = _with_horizon(spec, steps).scientific(), begun.scientific()
    differ = sorted(key for key in asked.keys() | there.keys() if asked.get(key) != there.get(key))
    if differ:
        raise ConfigError(
            f"{file}: a training with other settings was begun here ({', '.join(differ)}); "
            "choose another folder, or delete it"
        )
    log.info(
        "%s: %s steps, as begun before; a shorter or longer training takes another folder",
        file,
        f"{steps:,}",
    )
    return replace(begun, data=spec.data, split=spec.split)


def with_steps(spec: RunSpec, wishes: Wishes, threads: int, device: str) -> RunSpec:
    """Steps as asked for, or as many as fit into the time."""
    steps = wishes.steps
    if steps is None:
        with tempfile.TemporaryDirectory() as folder:
            step = seconds_per_step(spec, folder, threads, device)
        steps = _round(STEPS_SHARE * wishes.seconds / step)
        log.info("%.1f ms a step: %s steps in %.0f s", 1e3 * step, f"{steps:,}", steps * step)
    return _with_horizon(spec, steps)


def _with_horizon(spec: RunSpec, steps: int) -> RunSpec:
    """A number of steps, and what follows from it."""
    return replace(
        spec,
        steps=steps,
        ema=min(spec.ema, max(0.0, 1 - 1 / (AVERAGED * steps))),
        validation_interval=max(1, min(1000, steps // 50)),
        checkpoint_interval=max(1, min(10_000, steps // 10)),
    )


def _round(steps: float) -> int:
    """Two significant digits, at least 100."""
    return max(100, int(float(f"{steps:.1e}")))
