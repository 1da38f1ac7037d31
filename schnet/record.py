"""What goes into a run, and what a finished run says of itself: run.yaml."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schnet import provenance
from schnet.data.splits import load_split, split_digest
from schnet.data.store import Store
from schnet.data.structures import Structures, load
from schnet.errors import ConfigError, DataError, ModelError
from schnet.files import write_yaml
from schnet.run import MODEL_FILE, RUN_FILE, RunSpec, make_spec, read_finished, settings_of
from schnet.schema import validate


@dataclass
class Inputs:
    """The data and the split of a run, opened and found to fit.

    Attributes:
        store: the converted data set.
        parts: indices into it by part: train, validation, test, ….
        split_digest: SHA-256 of the split.
        neighbours: file with the neighbour lists, or None.
    """

    store: Store
    parts: dict[str, np.ndarray]
    split_digest: str
    neighbours: str | None = None

    def load(
        self,
        indices,
        properties: Sequence[str],
        *,
        cutoff: float | None = None,
        device="cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Structures:
        """Structures of the data set in memory, with neighbours within the cutoff (Å)."""
        return load(
            self.store,
            indices,
            properties,
            cutoff=cutoff,
            neighbours=self.neighbours,
            device=device,
            dtype=dtype,
        )


def open_inputs(spec: RunSpec) -> Inputs:
    """Open what a run is made from.

    Raises:
        ConfigError: the split has other sizes than the settings say.
        DataError: data or split are missing, damaged, or do not belong together; or the data have
            no such property.
    """
    for key in ("data", "split"):
        if not getattr(spec, key):
            raise ConfigError(f"{key}: the path of a file must be given")
    store = Store(spec.data)
    store.require(spec.target)
    if spec.forces:
        store.require(spec.forces)
    parts = load_split(spec.split, store)
    for key, part in (("n_train", "train"), ("n_validation", "validation")):
        wanted, there = getattr(spec, key), len(parts[part])
        if wanted is not None and wanted != there:
            raise ConfigError(
                f"{spec.split}: has {there:,} {part} structures, but the run says {key}: {wanted:,}"
            )
    return Inputs(store, parts, split_digest(spec.split), spec.neighbours)


def write_run_file(
    folder: Path, spec: RunSpec, inputs: Inputs, result: dict, *, threads: int, device
) -> None:
    """Write run.yaml of a finished run.

    Args:
        folder: the run's directory.
        spec: its settings; ``run:`` has those that decide the result, ``execution:`` the others.
        inputs: what it was made from.
        result: what it came to; ``seconds``, ``core_seconds`` and ``parameters`` of every method,
            and its own.
        threads, device: what computed it.
    """
    common = {
        "seconds": round(result["seconds"], 1),
        "core_seconds": round(result["core_seconds"], 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "hardware": provenance.hardware(device),
        "parameters": result["parameters"],
        "n_train": len(inputs.parts["train"]),
        "n_validation": len(inputs.parts["validation"]),
    }
    about = {
        "run": spec.scientific(),
        "execution": spec.execution() | {"device": str(device), "threads": threads},
        "result": common | {k: v for k, v in result.items() if k not in common},
        "data": {
            "digest": inputs.store.digest,
            "split_digest": inputs.split_digest,
            "sources": inputs.store.sources,
            "notes": inputs.store.notes,
        },
        "provenance": provenance.collect(),
    }
    write_yaml(Path(folder) / RUN_FILE, about)


def finished_run(folder: Path, **paths: str | None) -> tuple[RunSpec, dict]:
    """Settings and run.yaml of a finished run.

    Args:
        folder: the run's directory.
        paths: data, split, neighbours in place of those that it was made from; None: as it was.
    """
    about = read_finished(folder)
    file = Path(folder) / RUN_FILE
    settings = settings_of(about) | {k: str(v) for k, v in paths.items() if v is not None}
    validate(settings, "run", file)
    return make_spec(settings, str(file)), about


def check_origin(file: Path, told: dict, about: dict) -> None:
    """Raise ModelError unless a model file tells the run of a run.yaml as its origin.

    Args:
        file: the model file.
        told: its ``run``, the scientific settings as JSON; ``data`` and ``split``: their digests,
            where it has them.
        about: the content of run.yaml.
    """
    try:
        settings = json.loads(told["run"])
        # files of earlier versions know fewer settings, or others
        known = settings.keys() & about["run"].keys()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{file}: does not tell which run made it; train again") from error
    different = sorted(key for key in known if settings[key] != about["run"][key])
    for key, digest in (("data", "digest"), ("split", "split_digest")):
        if told.get(key) not in (None, about["data"][digest]):
            different.append(key)
    if different:
        raise ModelError(
            f"{file}: is the model of another run ({', '.join(different)} differ); "
            "put the run's own back or train again"
        )


def is_finished(folder: Path, spec: RunSpec) -> bool:
    """Whether a directory holds the result of this very run: same settings, data and split.

    Raises:
        ConfigError: it holds the result of a run with other settings, which would be lost.
    """
    folder = Path(folder)
    if not ((folder / RUN_FILE).exists() and (folder / MODEL_FILE).exists()):
        return False
    there, about = finished_run(folder)
    mine, theirs = spec.scientific(), there.scientific()
    different = [k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)]
    if different:
        raise ConfigError(
            f"{folder}: holds a finished run with other settings ({', '.join(sorted(different))}); "
            "choose another directory or delete it"
        )
    if "steps" in about["result"] and not (folder / "history.csv").exists():
        return False
    data = about["data"]
    same_data = Store(spec.data).digest == data["digest"]
    return same_data and split_digest(spec.split) == data["split_digest"]


def open_inputs_of(folder: Path, spec: RunSpec, about: dict) -> Inputs:
    """Open the data and the split of a finished run.

    Raises:
        DataError: they are not those that the run was made from, or not where they were.
    """
    for key, file in (("data", spec.data), ("split", spec.split)):
        if not Path(file).exists():
            raise DataError(
                f"{folder}: its {key} {file} is not here (seen from {Path.cwd()}); say where it "
                f"is: --{key} FILE"
            )
    here = {
        "digest": (spec.data, Store(spec.data).digest),
        "split_digest": (spec.split, split_digest(spec.split)),
    }
    for key, (file, digest) in here.items():
        if digest != about["data"][key]:
            raise DataError(f"{folder}: was trained with another {file} than this is; train again")
    return open_inputs(spec)
