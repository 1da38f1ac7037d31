"""Architectures behind one contract (``contract.Model``), and their files.

A new architecture is a new file here, see docs/extending.md.
"""

from schnet.models.contract import BaseHyperparameters, Components, Model
from schnet.models.files import load_model, read_model_file, save_model
from schnet.models.registry import (
    architectures,
    build,
    check_hyperparameters,
    hyperparameters_of,
    model_class,
)
from schnet.models.validate import validate_model

__all__ = [
    "BaseHyperparameters",
    "Components",
    "Model",
    "architectures",
    "build",
    "check_hyperparameters",
    "hyperparameters_of",
    "load_model",
    "model_class",
    "read_model_file",
    "save_model",
    "validate_model",
]
