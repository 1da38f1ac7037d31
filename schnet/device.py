"""Which processor computes."""

from __future__ import annotations

from schnet.errors import ConfigError


def choose_device(asked: str) -> str:
    """ "cpu" or "cuda"; for "auto" a GPU where PyTorch finds one.

    Raises:
        ConfigError: "cuda" is asked for, and PyTorch finds no GPU.
    """
    if asked == "cpu":
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return "cpu"
    raise ConfigError(
        f"device: {asked} asked for, but PyTorch finds no GPU; set device: cpu or auto"
    )
