"""Errors a user can act on: the command line prints them as one message and exits with status 2."""


class SchNetError(Exception):
    """Something is wrong with the input or the environment; the message says where and what to do."""


class DataError(SchNetError):
    """A data file cannot be used."""


class OutsideTable(DataError):
    """A distance is zero, not a number, or outside the range of the filter table."""

    def __init__(self, lo: float, hi: float):
        super().__init__(f"a distance is zero or outside the tabulated range {lo:.3f}–{hi:.3f} Å")


class ConfigError(SchNetError):
    """A configuration, experiment or run file cannot be used."""


class TrainingError(SchNetError):
    """A training cannot go on (diverged, wrong checkpoint)."""


class ModelError(SchNetError):
    """A model file cannot be used."""
