"""Rows and columns of an experiment; a scan stands for one entry per value."""

from __future__ import annotations

from schnet.errors import ConfigError
from schnet.run import EXECUTION
from schnet.schema import validate


def expand_scans(entries: list[dict], where: str) -> list[dict]:
    """Rows or columns with every scan written out.

    A scan names a setting of a run, with ``model.`` before a hyper-parameter, and its values::

        - {scan: model.gamma, values: [5, 10, 50], labels: [wide, usual, narrow]}

    becomes three entries with keys ``model.gamma=5`` and so on; labels are optional.
    """
    out = []
    for entry in entries:
        if "scan" not in entry:
            out.append(entry)
            continue
        common = {k: v for k, v in entry.items() if k not in ("scan", "values", "labels")}
        validate(common.get("run", {}), "run", f"{where}: scan of {entry['scan']}: run")
        if entry["scan"] in EXECUTION:
            raise ConfigError(f"{where}: scan of {entry['scan']}: it changes no result")
        values, setting = entry["values"], entry["scan"]
        labels = entry.get("labels") or [f"{setting.split('.')[-1]} = {_text(v)}" for v in values]
        if len(labels) != len(values):
            count = f"{len(labels)} labels for {len(values)} values"
            raise ConfigError(f"{where}: scan of {setting}: {count}")
        for value, label in zip(values, labels, strict=True):
            out.append(common | _entry(setting, value, label, common.get("run", {})))
    return out


def _text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entry(setting: str, value, label: str, run: dict) -> dict:
    """One row or column of a scan."""
    section, _, name = setting.rpartition(".")
    change = {name: value}
    if section == "model":
        change = {"model": run.get("model", {}) | change}
    entry: dict = {"key": f"{setting}={_text(value)}", "label": label, "run": run | change}
    if isinstance(value, int | float) and not isinstance(value, bool):
        entry["value"] = value
    return entry
