"""Errors a user can act on: the command line prints them as one message and exits with status 2."""

from difflib import get_close_matches


def first_line(error: Exception, length: int = 120) -> str:
    """The beginning of an error's message, or its kind where it has none."""
    lines = str(error).splitlines()
    return lines[0][:length] if lines else type(error).__name__


class SchNetError(Exception):
    """Something is wrong with the input or the environment; the message says where, what to do."""


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


def known_or_nearest(name: str, known, what: str, where: str):
    """Raise ConfigError with the nearest valid name when ``name`` is not among ``known``."""
    known = list(known)
    if name in known:
        return
    near = get_close_matches(str(name), [str(k) for k in known], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(map(str, known))}"
    raise ConfigError(f"{where}: no {what} {name!r}; {hint}")
