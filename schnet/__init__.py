"""SchNet (Schütt et al., J. Chem. Phys. 148, 241722, 2018): model, engine and replication."""

import importlib

__version__ = "0.1.0"

#: what can be imported from here, and where it is; nothing is imported before it is asked for
_PUBLIC = {
    "SchNetCalculator": "schnet.simulation.calculator",
    "SchNet": "schnet.models.schnet",
    "load_model": "schnet.models",
    "save_model": "schnet.models",
    "validate_model": "schnet.models",
    "find_model": "schnet.trained",
    "train": "schnet.own",
    "trained_models": "schnet.trained",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'schnet' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
