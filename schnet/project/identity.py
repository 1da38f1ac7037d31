"""Where a run lives: a readable name, and a digest of what the name does not say."""

from __future__ import annotations

from schnet.run import RunSpec, protocol_settings

DIGITS = 6  # of the digest, in a directory's name
#: settings that other parts of a run's path tell
_IN_PATH = ("dataset", "target", "forces", "n_train", "split_strategy")
#: training settings that a name tells where they differ from the protocol's
_NAMED = {"learning_rate": "lr", "loss": "loss_", "schedule": "", "batch_size": "batch"}


def _number(x) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)


def _steps(n: int) -> str:
    """1500 -> 1500, 200000 -> 200k, 10000000 -> 10M"""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if n >= size and n % size == 0:
            return f"{n // size}{letter}"
    return str(n)


def model_name(spec: RunSpec, short: dict[str, str], defaults: dict) -> str:
    """The directory of a run's model: readable, unique, the same for the same settings.

    Args:
        spec: the settings.
        short: hyper-parameters that are always named, with their abbreviation.
        defaults: hyper-parameters by default.

    Returns:
        For example ``schnet-T3-F64-rho0.01-short-200k-1f3a5c``; the last part is the beginning of
        the digest of all settings that are not default and not told by the rest of the path.
    """
    neural = spec.method == "neural"
    parts = [spec.architecture if neural else spec.method]
    for key, letter in short.items():
        parts.append(f"{letter}{_number(spec.model.get(key, defaults[key]))}")
    if spec.model.get("readout") == "dipole":
        parts.append("dipole")
    if neural:
        if spec.forces:
            parts.append(f"rho{_number(spec.rho)}")
        usual = protocol_settings(spec.protocol, spec.dataset)
        for key, letter in _NAMED.items():
            value = getattr(spec, key)
            if value != usual.get(key, RunSpec.__dataclass_fields__[key].default):
                parts.append(f"{letter}{_number(value)}")
        if spec.protocol != "paper":
            parts.append(spec.protocol)
        parts.append(_steps(spec.steps))
    parts.append(spec.digest(defaults, without=_IN_PATH)[:DIGITS])
    return "-".join(parts)


def run_path(spec: RunSpec, short: dict[str, str], defaults: dict) -> str:
    """DATASET/TARGET/MODEL/nN/repR of a run."""
    what = "+".join(filter(None, [spec.target, spec.forces]))
    tail = "" if spec.split_strategy == "random" else f"-{spec.split_strategy}"
    name = model_name(spec, short, defaults)
    return f"{spec.dataset}/{what}/{name}/n{spec.n_train}{tail}/rep{spec.repeat}"


def split_path(spec: RunSpec) -> str:
    """DATASET/SIZES-STRATEGY-SEED.npz of a run's split."""
    sizes = f"n{spec.n_train}-v{spec.n_validation}"
    return f"{spec.dataset}/{sizes}-{spec.split_strategy}-seed{spec.split_seed}.npz"
