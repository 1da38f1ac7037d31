"""The architectures, found by their files: every other module of this folder is one."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from difflib import get_close_matches

from schnet.errors import ConfigError, known_or_nearest
from schnet.models.contract import BaseHyperparameters, Model, hyperparameter_names

NO_ARCHITECTURES = {"contract", "directional", "files", "layers", "registry"}
NO_ARCHITECTURES |= {"tf_import", "validate"}


def architectures() -> list[str]:
    """Names of all architectures, without importing them."""
    import schnet.models

    names = [module.name for module in pkgutil.iter_modules(schnet.models.__path__)]
    return sorted(set(names) - NO_ARCHITECTURES)


def _module(name: str):
    path = f"schnet.models.{name}"
    if name in NO_ARCHITECTURES or path not in sys.modules:  # looking through the folder is slow
        known_or_nearest(name, architectures(), "architecture", "model")
    return importlib.import_module(path)


def hyperparameters_of(name: str) -> type[BaseHyperparameters]:
    """The Hyperparameters class of an architecture.

    Raises:
        ConfigError: no such architecture (with the nearest name), or its file declares none.
    """
    cls = getattr(_module(name), "Hyperparameters", None)
    if not (isinstance(cls, type) and issubclass(cls, BaseHyperparameters)):
        raise ConfigError(
            f"schnet/models/{name}.py: has no class Hyperparameters(BaseHyperparameters)"
        )
    return cls


def model_class(name: str) -> type[Model]:
    """The Model subclass that the file of an architecture defines.

    Raises:
        ConfigError: no such architecture, or its file defines not exactly one model.
    """
    module = _module(name)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Model)
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"schnet/models/{name}.py: defines {len(classes)} subclasses of Model, expected one"
        )
    return classes[0]


def check_hyperparameters(name: str, values: dict) -> BaseHyperparameters:
    """The hyper-parameters of an architecture from a dictionary, checked.

    Raises:
        ConfigError: an unknown architecture or hyper-parameter (with the nearest valid name), or a
            value of a wrong type or outside its range.
    """
    cls = hyperparameters_of(name)
    known = hyperparameter_names(cls)
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"model: {name} has no hyper-parameter {key!r}; {hint}")
    return cls(**values)


def build(name: str, hyperparameters: dict) -> Model:
    """A freshly initialised model.

    Raises:
        ConfigError: see ``check_hyperparameters``.
    """
    checked = check_hyperparameters(name, hyperparameters)
    return model_class(name)(checked)
