"""Validation of configuration files: one clear sentence for a typo."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path

from schnet.errors import ConfigError
from schnet.files import read_yaml

SCHEMAS = Path(__file__).resolve().parent / "schemas"


@cache
def _schema(name: str) -> dict:
    return read_yaml(SCHEMAS / f"{name}.schema.yaml")


def _place(error) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(
        "."
    )


def validate(value, name: str, where):
    """Check ``value`` against schnet/schemas/NAME.schema.yaml.

    Raises ConfigError with file, place and, for an unknown key, the nearest valid one.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(_schema(name))
    errors = sorted(
        validator.iter_errors(value),
        key=lambda e: (e.validator != "additionalProperties", list(map(str, e.absolute_path))),
    )
    if not errors:
        return
    error = errors[0]
    place = _place(error)
    at = f"{where}: " + (f"{place}: " if place else "")
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(k for k in error.instance if k not in known)
        near = get_close_matches(str(unknown), known, 1)
        raise ConfigError(
            f"{at}unknown key {unknown!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
        )
    if error.validator == "enum":
        near = get_close_matches(str(error.instance), [str(v) for v in error.validator_value], 1)
        raise ConfigError(
            f"{at}{error.instance!r} is none of {', '.join(map(str, error.validator_value))}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    raise ConfigError(at + error.message)
