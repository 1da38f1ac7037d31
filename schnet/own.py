"""A model of one's own data in one command: convert, split, train, evaluate, draw, tell."""

from __future__ import annotations

import logging
import tempfile
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from schnet import methods
from schnet.data.own import convert_file
from schnet.data.splits import make_split, save_split, seen_in_training
from schnet.data.store import Store
from schnet.errors import ConfigError, DataError, SchNetError, known_or_nearest
from schnet.evaluation import evaluate
from schnet.files import atomic, read_yaml, scratch, write_yaml
from schnet.models.registry import model_class
from schnet.plan.timing import seconds_per_step
from schnet.run import Run, RunSpec, make_spec

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
#: times the median deviation of a label: more is no physics
ODD = 100
#: part of the mean force by which forces may be wrong to count as learned
LEARNED = 0.3


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


def train(source, out, *, threads: int = 1, device: str = "cpu", **wishes) -> Path:
    """Train on a structure file, or a converted data set; continues after an interruption.

    Args:
        source: any file that ASE reads, with labels, or an HDF5 file of `schnet data convert`.
        out: folder; gets data.h5, split.npz, settings.yaml, what a run has (model.pt, run.yaml,
            history.csv, metrics.json, predictions.h5), learning.png and parity.png.
        threads, device: of the training.
        wishes: the attributes of `Wishes`; what is not given is chosen from the data.

    Returns:
        The model file.

    Raises:
        ConfigError, DataError: see `convert_file`; too few structures; or the folder holds the
            training of other data or wishes.

    Example:
        >>> from ase.build import molecule
        >>> from ase.calculators.emt import EMT
        >>> frames = []
        >>> for seed in range(40):
        ...     atoms = molecule("CH3CH2OH")
        ...     atoms.rattle(0.05, seed=seed)
        ...     atoms.calc = EMT()
        ...     forces = atoms.get_forces()  # and the energy: both are written with the frame
        ...     frames.append(atoms)
        >>> from ase.io import write
        >>> write("frames.extxyz", frames)
        >>> train("frames.extxyz", "my_model", steps=100)  # doctest: +ELLIPSIS
        <BLANKLINE>
        ...
        PosixPath('my_model/model.pt')
    """
    for name in wishes:
        known_or_nearest(name, [f.name for f in fields(Wishes)], "setting", "schnet.train")
    known_or_nearest(device, ["cpu", "cuda"], "device", "device")
    out, asked = Path(out), Wishes(**wishes)
    data, target, forces = _data(source, out, asked)
    store = Store(data)
    spec = _settings(store, target, forces, asked)
    split = out / "split.npz"
    spec = replace(spec, data=str(data), split=str(split))
    parts = make_split(
        store, n_train=spec.n_train or 0, n_validation=spec.n_validation or 0, seed=asked.seed
    )
    _warn_of_odd_labels(store, target)
    repeated = seen_in_training(store, parts)
    if repeated:
        log.warning(
            "%s: %s structures to validate and test are in the training part too, with the same "
            "positions; the errors will look too small",
            source,
            f"{repeated:,}",
        )
    if (out / SETTINGS).exists():
        spec = _as_begun(spec, out, asked)
    else:
        save_split(split, store, parts)
        spec = _with_steps(spec, asked, threads, device)
        write_yaml(out / SETTINGS, spec.stated())
    methods.fit(spec, out, threads=threads, device=device)
    metrics = evaluate(out, threads=threads, device=device)
    _draw(Run(store.name, out, spec))
    _tell(out, metrics, parts, store, spec, asked.unit)
    _warn_of_contradictions(Run(store.name, out, spec), metrics, store)
    return out / "model.pt"


# ---- choices ----
def _data(source, out: Path, wishes: Wishes) -> tuple[Path, str, str | None]:
    """The converted data set, and the names of what is learned."""
    if not isinstance(source, str | Path) or Path(source).is_dir():
        raise ConfigError(f"{source}: one file with structures is expected")
    if str(source).endswith((".h5", ".hdf5")):
        return _converted(source, wishes)
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


def _converted(source, wishes: Wishes) -> tuple[Path, str, str | None]:
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


def _settings(store: Store, target: str, forces: str | None, wishes: Wishes) -> RunSpec:
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


def _as_begun(spec: RunSpec, out: Path, wishes: Wishes) -> RunSpec:
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


def _with_steps(spec: RunSpec, wishes: Wishes, threads: int, device: str) -> RunSpec:
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


# ---- what is noticed ----
def _warn_of_odd_labels(store: Store, target: str) -> None:
    """Warn where a label is far from what the elements of its structure suggest."""
    with store.open() as h5:
        values = h5[f"properties/{target}"][:].astype(float)
        elements, kind = np.unique(h5["atomic_numbers"][:], return_inverse=True)
    counts = np.zeros((len(store), len(elements)))
    owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    np.add.at(counts, (owner, kind), 1)
    if store.properties[target].unit.endswith("/atom"):
        counts /= counts.sum(1, keepdims=True)
    away = np.zeros(len(store))
    kept = np.full(len(store), True)
    for _ in range(2):  # the second time without those that would pull the fit to themselves
        away = values - counts @ np.linalg.lstsq(counts[kept], values[kept], rcond=None)[0]
        away = np.abs(away - np.median(away))
        kept = away <= np.quantile(away, 0.9)
    odd = np.flatnonzero(away > ODD * max(np.median(away), 1e-9 * np.abs(values).max()))
    if len(odd):
        worst = odd[away[odd].argmax()]
        log.warning(
            "%s: %s of %s structures are far off; structure %s: %s is %.4g %s from what the others "
            "suggest. Look at it: one wrong label spoils the errors of all",
            store.path,
            len(odd),
            f"{len(store):,}",
            store.ids([worst])[0],
            target,
            away[worst],
            store.properties[target].unit,
        )


def _warn_of_contradictions(run: Run, metrics: dict, store: Store) -> None:
    """Warn where forces were learned but cannot be the derivatives of the energies.

    Energies that are predicted then change otherwise than the labels: with another sign where the
    forces are gradients, by another factor where the units differ.
    """
    from schnet.figures.results import predictions

    found, forces = predictions(run), run.settings.forces
    if found is None or forces is None or found.true.std() == 0:
        return
    with store.open() as h5:
        typical = float(np.abs(h5[f"properties/{forces}"][:]).mean())
    slope = np.polyfit(found.true, found.predicted, 1)[0]
    if metrics["parts"][found.part]["forces"]["mae"] < LEARNED * typical and not 0.5 < slope < 2:
        log.warning(
            "forces fit, but predicted energies change by %.2g where the labels change by 1: "
            "forces with the wrong sign (gradients), or energies and forces in different units?",
            slope,
        )


# ---- what is shown ----
def _draw(run: Run) -> None:
    """learning.png and parity.png, in the folder."""
    from matplotlib import rc_context

    from schnet.figures import predicted_true, style, training_curves
    from schnet.figures.results import predictions

    size = {"width": 3.6, "height": 3.0}
    with rc_context(style.settings()):
        learning, (ax,) = style.panels(1, columns=1, **size)
        training_curves.panel(ax, [run])
        ax.set(xlabel="step", ylabel="validation loss (dot: its minimum)")
        quantities = [run.settings.target, run.settings.forces]
        shown = [name for name in quantities if name is not None]
        parity, axes = style.panels(len(shown), columns=2, **size)
        for ax, quantity in zip(axes, shown, strict=True):
            ax.set_title(quantity)
            found = predictions(run, forces=quantity == run.settings.forces)
            if found is None:
                style.empty(ax, "no test part")
            else:
                predicted_true.panel(ax, found, predicted_true.OPTIONS)
        for name, picture in {"learning": learning, "parity": parity}.items():
            with atomic(run.folder / f"{name}.png") as temporary:
                picture.savefig(temporary)


def _tell(
    out: Path, metrics: dict, parts: dict, store: Store, spec: RunSpec, unit: str | None
) -> None:
    """Errors, and what to do with the model."""
    sizes = ", ".join(f"{len(indices):,} {part}" for part, indices in parts.items())
    print(f"\n{store.path}: {sizes}; {spec.steps:,} steps")
    for part, values in metrics["parts"].items():
        for quantity, v in values.items():
            print(
                f"{part:12} {quantity:12} MAE {v['mae']:.4g}, RMSE {v['rmse']:.4g} {v['unit']}"
                f" ({v['n']:,} values)"
            )
    model = out / "model.pt"
    print(f"\nlearning curve and predictions: {out / 'learning.png'}, {out / 'parity.png'}")
    again = (
        f"schnet train {out / SETTINGS} --data {store.path} --split {out / 'split.npz'} -o OTHER"
    )
    print(f"settings, to be changed and trained again: {again}")
    labels = "" if unit is None else f" --unit {unit}"
    print(f"  schnet predict {model} STRUCTURES -o predicted.extxyz{labels}")
    if spec.forces and model_class(spec.architecture).invariant:
        print(f"  schnet md STRUCTURE {model} -o FOLDER --steps 2000    also: relax, modes, pimd")
        print(f'  from schnet import SchNetCalculator; atoms.calc = SchNetCalculator("{model}")')
