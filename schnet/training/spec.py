"""What a run is: everything about one training in one small file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from schnet.errors import ConfigError

PROTOCOLS = ("paper", "tf_code", "short")


@dataclass
class RunSpec:
    """One training; see workflow/schemas/run.schema.yaml for the file.

    target: the property; forces: name of the force property or None. loss: ``paper`` (Eq. 5: rho ΔE² +
    |ΔF|²/n), or ``tf_code`` (half the batch sum of rho ΔE² + |ΔF|²). schedule: ``exponential``
    lr · 0.96^(step/100,000), ``short`` (lr for 75 % of the run, then geometrically to lr_final) or
    ``sgdr`` (cosine with warm restarts, period doubling). ema: decay of the weight average, 0 = none. output_scale: what the network's output is
    scaled by, the spread of the target (per atom) or, when trained on forces, of the force components.
    """

    dataset: str
    data: str
    split: str
    target: str
    forces: str | None = None
    architecture: str = "schnet"
    model: dict = field(default_factory=dict)
    protocol: str = "paper"
    seed: int = 0
    rho: float = 0.01
    loss: str = "paper"
    schedule: str = "exponential"
    learning_rate: float = 1e-3
    learning_rate_final: float = 1e-5
    sgdr_period: int = 50_000
    batch_size: int = 32
    steps: int = 100_000
    validation_interval: int = 1000
    validation_limit: int | None = None
    checkpoint_interval: int = 5000
    patience: int | None = None
    ema: float = 0.0
    gradient_clipping: float | None = None
    atomrefs: bool = True
    output_scale: str = "energy"
    tf32: bool = False
    compile: bool = False
    engine: str = "auto"
    scale: str = ""
    repeat: int = 0

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol: {self.protocol!r} is none of {', '.join(PROTOCOLS)}")
        if self.output_scale not in ("energy", "forces"):
            raise ConfigError(f"output_scale: {self.output_scale!r} is neither energy nor forces")
        if self.loss not in ("paper", "tf_code"):
            raise ConfigError(f"loss: {self.loss!r} is neither paper nor tf_code")
        if self.schedule not in ("exponential", "short", "sgdr"):
            raise ConfigError(f"schedule: {self.schedule!r} is none of exponential, short, sgdr")

    def to_dict(self) -> dict:
        return asdict(self)


#: what the protocols set; everything can be overridden by the run itself
PROTOCOL_SETTINGS = {
    "paper": {"loss": "paper", "schedule": "exponential", "learning_rate": 1e-3, "ema": 0.0},
    "tf_code": {"loss": "tf_code", "schedule": "exponential", "learning_rate": 1e-3, "ema": 0.0, "validation_interval": 5000},
    "short": {"loss": "paper", "schedule": "short", "learning_rate": 1e-3, "learning_rate_final": 1e-5, "ema": 0.999, "output_scale": "forces"},
}


def make_spec(values: dict, where: str = "run") -> RunSpec:
    """A RunSpec from a dictionary: protocol settings first, then the run's own. ConfigError for an unknown key."""
    from difflib import get_close_matches

    known = RunSpec.__dataclass_fields__
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ConfigError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    protocol = values.get("protocol", "paper")
    try:
        return RunSpec(**{**PROTOCOL_SETTINGS.get(protocol, {}), **values})
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).replace('RunSpec.__init__() ', '')}") from error
