"""What a run is: everything about one training in one small file, and where its results lie.

The settings of a run are of two kinds. Scientific settings decide the result; they are the run's
identity. Execution settings (``EXECUTION``) say how it is computed and where its files are; they
change no directory, no digest, and are no reason to train again.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

from schnet.errors import ConfigError
from schnet.files import read_json, read_yaml
from schnet.schema import validate

#: in a run's directory: the fitted model of any method (plain tensors, numbers and text), what the
#: run says of itself when it is finished; its errors and every prediction, when it is evaluated
MODEL_FILE = "model.pt"
RUN_FILE = "run.yaml"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.h5"
#: settings that never change what a run is
EXECUTION = ("data", "split", "neighbours", "engine", "checkpoint_interval", "compile")
#: keys that run files of earlier versions had
DROPPED = ("scale",)
#: settings of gradient steps; they mean nothing to a method that takes none
GRADIENT_STEPS = (
    "architecture",
    "protocol",
    "rho",
    "loss",
    "schedule",
    "learning_rate",
    "learning_rate_final",
    "sgdr_period",
    "sgdr_cycles",
    "batch_size",
    "steps",
    "validation_interval",
    "validation_limit",
    "patience",
    "ema",
    "adam_beta2",
    "gradient_clipping",
    "output_scale",
    "tf32",
)

#: what the protocols set (docs/protocol.md); everything can be overridden by the run itself
PROTOCOL_SETTINGS = {
    "paper": {
        "loss": "paper",
        "schedule": "exponential",
        "learning_rate": 1e-3,
        "ema": 0.0,
        "output_scale": "energy",
    },
    "tf_code": {
        "loss": "tf_code",
        "schedule": "exponential",
        "learning_rate": 1e-3,
        "ema": 0.0,
        "output_scale": "energy",
        "validation_interval": 5000,
    },
    "short": {
        "loss": "paper",
        "schedule": "short",
        "learning_rate": 1e-3,
        "learning_rate_final": 1e-5,
        "ema": 0.999,
        "adam_beta2": 0.99,
        "output_scale": "forces",
    },
}
#: what a protocol sets for one data set only: the arguments stored with the released C20 models
PROTOCOL_SETTINGS_OF_DATASET = {("tf_code", "c20"): {"learning_rate": 1e-4}}
PROTOCOLS = tuple(PROTOCOL_SETTINGS)


def default_settings() -> dict:
    """The scientific settings that have a default, with it."""
    return {
        f.name: f.default
        for f in fields(RunSpec)
        if f.name not in EXECUTION and f.default is not MISSING
    }


def protocol_settings(protocol: str, dataset: str) -> dict:
    """The settings that a protocol fixes for a data set.

    Raises ConfigError for an unknown protocol.
    """
    if protocol not in PROTOCOL_SETTINGS:
        raise ConfigError(f"protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}")
    special = PROTOCOL_SETTINGS_OF_DATASET.get((protocol, dataset), {})
    return PROTOCOL_SETTINGS[protocol] | special


@dataclass
class RunSpec:
    """The settings of one run; schnet/schemas/run.schema.yaml describes the file.

    Scientific settings:
        dataset, target: what is learned; forces: name of the force property, or None.
        method: how it is fitted ("neural": gradient steps; others in schnet/methods).
        architecture: the model of a neural run; model: its hyper-parameters, or the method's.
        n_train, n_validation, split_strategy, split_seed: the split.
        seed: of weights and batches; repeat: which of several runs that differ in seeds alone.
        protocol: the name of a set of training settings (``PROTOCOL_SETTINGS``).
        rho: ρ of Eq. 5. loss: ``paper`` (Eq. 5: mean of ρ ΔE² + Σ|ΔF|²/n), or ``tf_code``
            (half the batch sum of ρ ΔE² + Σ|ΔF|²).
        schedule: of the learning rate, see schnet.training.schedule.
        sgdr_period: steps to the first restart of ``sgdr``. sgdr_cycles: that many cycles fill the
            run, whatever sgdr_period says; or None.
        batch_size, steps, validation_interval (steps), validation_limit (structures).
        patience: steps without improvement after which training ends, or None.
        ema: decay of the average of the weights, 0 for none.
        adam_beta2: β₂ of Adam, the memory of its running mean of squared gradients.
        gradient_clipping: largest norm of the gradient, or None.
        atomrefs: remove the data set's single-atom values first.
        output_scale: what scales the network's output: the spread of the target (``energy``),
            or, where forces are trained, that of their components (``forces``).
        tf32: let a GPU round products to TensorFloat-32.

    Execution settings: data, split, neighbours: paths. engine: see schnet.engine.
        checkpoint_interval: steps. compile: torch.compile for ``engine: reference``.
    """

    dataset: str
    target: str
    forces: str | None = None
    method: str = "neural"
    architecture: str = "schnet"
    model: dict = field(default_factory=dict)
    n_train: int | None = None
    n_validation: int | None = None
    split_strategy: str = "random"
    split_seed: int = 0
    seed: int = 0
    repeat: int = 0
    protocol: str = "paper"
    rho: float = 0.01
    loss: str = "paper"
    schedule: str = "exponential"
    learning_rate: float = 1e-3
    learning_rate_final: float = 1e-5
    sgdr_period: int = 50_000
    sgdr_cycles: int | None = None
    batch_size: int = 32
    steps: int = 100_000
    validation_interval: int = 1000
    validation_limit: int | None = None
    patience: int | None = None
    ema: float = 0.0
    adam_beta2: float = 0.999
    gradient_clipping: float | None = None
    atomrefs: bool = True
    output_scale: str = "energy"
    tf32: bool = False

    data: str = ""
    split: str = ""
    neighbours: str | None = None
    engine: str = "auto"
    checkpoint_interval: int = 5000
    compile: bool = False

    def __post_init__(self):
        """5 and 5.0 are the same setting; what is not a finite number is none.

        Raises ConfigError for the latter and for a fraction where a whole number is meant.
        """
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                raise ConfigError(f"{f.name}: {value} is not a finite number")
            if "float" in str(f.type):
                setattr(self, f.name, float(value))
            elif value != int(value):
                raise ConfigError(f"{f.name}: {value} is not a whole number")
            else:
                setattr(self, f.name, int(value))
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: {self.seed} is not between 0 and 2^63")

    def to_dict(self) -> dict:
        """All settings, scientific and execution."""
        return asdict(self)

    def scientific(self) -> dict:
        """The settings that decide the result, without those that the method does not know."""
        values = {k: v for k, v in asdict(self).items() if k not in EXECUTION}
        if self.method == "neural":
            return values
        return {k: v for k, v in values.items() if k not in GRADIENT_STEPS}

    def stated(self) -> dict:
        """The scientific settings that ``make_spec`` would not fill in by itself.

        They make the same run, and do not change when a setting with a default is added.
        """
        filled = make_spec({k: getattr(self, k) for k in ("dataset", "target", "protocol")})
        usual = filled.scientific() | {"dataset": None, "target": None, "protocol": "paper"}
        return {k: v for k, v in self.scientific().items() if k not in usual or v != usual[k]}

    def execution(self) -> dict:
        """The settings that say how and where the result is computed."""
        return {k: v for k, v in asdict(self).items() if k in EXECUTION}

    def identity(self, hyperparameters: dict | None = None) -> dict:
        """The scientific settings that differ from their defaults.

        A setting that is added later, with a default, is in no identity: existing runs stay what
        they are. Repeats of a run share it: their seeds count from the first one's.

        Args:
            hyperparameters: the defaults of the hyper-parameters in ``model``.
        """
        values = self.scientific()
        values["seed"] -= values.pop("repeat")
        values.pop("split_seed")
        usual = hyperparameters or {}
        model = values["model"]
        values["model"] = {k: v for k, v in model.items() if k not in usual or v != usual[k]}
        defaults = {f.name: f.default for f in fields(self)} | {"model": {}}
        return {k: v for k, v in values.items() if v != defaults[k]}

    def digest(self, hyperparameters: dict | None = None, without: tuple[str, ...] = ()) -> str:
        """SHA-256 of the identity (see there), in hexadecimal; ``without`` some settings."""
        identity = self.identity(hyperparameters)
        kept = {k: v for k, v in identity.items() if k not in without}
        text = json.dumps(_canonical(kept), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value):
    """The same for 5 and 5.0."""
    if isinstance(value, dict):
        return {k: _canonical(v) for k, v in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def make_spec(values: dict, where: str = "run") -> RunSpec:
    """A RunSpec from a dictionary: what the protocol sets, with the run's own settings on top.

    Raises ConfigError for an unknown or a missing key; ``where`` is named in the message.
    """
    known = RunSpec.__dataclass_fields__
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    missing = [key for key in ("dataset", "target") if key not in values]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} must be given")
    base = protocol_settings(values.get("protocol", "paper"), values["dataset"])
    return RunSpec(**(base | values))


def settings_of(about: dict) -> dict:
    """The settings in a run file, flat: one written by hand, or run.yaml of a finished run.

    The latter holds all scientific settings. One that it lacks was added later, and had its default
    then, whatever the protocol says of it now.
    """
    if not isinstance(about.get("run"), dict):
        return about
    execution = about.get("execution", {})
    settings = about["run"] | {k: v for k, v in execution.items() if k not in ("device", "threads")}
    settings = {k: v for k, v in settings.items() if k not in DROPPED}
    return default_settings() | settings if "result" in about else settings


@dataclass(frozen=True)
class Run:
    """One run of the workflow, finished or not.

    Attributes:
        path: DATASET/TARGET/MODEL/nN/repR, below results/SCALE/runs.
        folder: where its results are.
        settings: all its settings, paths of data and split included.
    """

    path: str
    folder: Path
    settings: RunSpec

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.settings.dataset

    @property
    def n_train(self) -> int:
        """Number of training structures; 0 where the settings do not say it."""
        return self.settings.n_train or 0

    @property
    def repeat(self) -> int:
        """Which of several runs that differ in seed and split alone, from 0."""
        return self.settings.repeat

    @property
    def data(self) -> Path:
        """The converted data set."""
        return Path(self.settings.data)

    @property
    def split(self) -> Path:
        """The split of the data set."""
        return Path(self.settings.split)

    @property
    def model_file(self) -> Path:
        """The fitted model."""
        return self.folder / MODEL_FILE

    @property
    def history_file(self) -> Path:
        """Validation errors during training, where there were steps."""
        return self.folder / "history.csv"

    @property
    def metrics_file(self) -> Path:
        """Errors on validation and test parts."""
        return self.folder / METRICS_FILE

    @property
    def predictions_file(self) -> Path:
        """Every prediction on validation and test parts."""
        return self.folder / PREDICTIONS_FILE

    def metrics(self) -> dict | None:
        """Test errors (metrics.json), or None while the run is not finished and evaluated."""
        done = self.metrics_file.exists() and (self.folder / RUN_FILE).exists()
        return read_metrics(self.folder) if done else None

    def about(self) -> dict | None:
        """Settings, cost, data and provenance (run.yaml), or None while the run is not finished.

        Raises ConfigError where run.yaml is damaged or tells of other settings.
        """
        file = self.folder / RUN_FILE
        if not file.exists():
            return None
        about = read_finished(self.folder)
        there = make_spec(settings_of(about), str(file))
        if different := _different(self.settings.scientific(), there.scientific()):
            raise ConfigError(
                f"{file}: is of a run with other settings ({', '.join(different)}); put the run's "
                "own file back, or delete the directory to train again"
            )
        return about


def _different(mine: dict, theirs: dict) -> list[str]:
    """Names of the scientific settings that differ; a model may leave out what it has by default.

    What it leaves out is in the directory's name, see ``schnet.project.identity``.
    """
    different = [k for k in mine if k != "model" and mine[k] != theirs.get(k)]
    one, other = mine["model"], theirs["model"]
    return different + [f"model: {k}" for k in one.keys() & other.keys() if one[k] != other[k]]


def read_finished(folder: str | Path) -> dict:
    """Content of the run.yaml of a finished run. Raises ConfigError where it is damaged."""
    file = Path(folder) / RUN_FILE
    return _checked(read_yaml(file), "finished_run", file, "delete the directory to train again")


def read_metrics(folder: str | Path) -> dict:
    """Content of a run's metrics.json. Raises ConfigError where it is damaged."""
    file, remedy = Path(folder) / METRICS_FILE, "delete it to evaluate the run again"
    metrics = _checked(read_json(file), "metrics", file, remedy)
    for part, quantities in metrics["parts"].items():
        for quantity, values in quantities.items():
            if not math.isfinite(values["mae"] + values["rmse"]):
                where = f"{file}: parts.{part}.{quantity}"
                raise ConfigError(f"{where}: an error is not a finite number; {remedy}")
    return metrics


def _checked(value, schema: str, file: Path, remedy: str):
    try:
        validate(value, schema, file)
    except ConfigError as error:
        raise ConfigError(f"{error}; {remedy}") from error
    return value
