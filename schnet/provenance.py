"""Where a result comes from: code, versions, hardware."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent
#: what a training depends on; a run names the digest of each
CODE = {
    "models": ("models",),
    "engine": ("engine",),
    "training": ("training",),
    "methods": ("methods", "evaluation.py"),
    "data": ("data/structures.py", "data/splits.py", "data/store.py"),
}
PACKAGES = ("torch", "numpy", "h5py", "ase", "vesin", "scikit-learn", "dscribe", "sgdml")


def _source_files(entry: str) -> list[Path]:
    """The source files below ``ROOT / entry``, or that file itself."""
    path = ROOT / entry
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.suffix in (".py", ".h", ".cpp"))


@functools.cache
def code() -> dict[str, str]:
    """SHA-256 of the source files that decide what a training gives, by part (see CODE)."""
    digests = {}
    for part, entries in CODE.items():
        h = hashlib.sha256()
        for file in (f for entry in entries for f in _source_files(entry)):
            h.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
        digests[part] = h.hexdigest()
    return digests


def _git(*arguments: str) -> str | None:
    """Output of a git command in the repository, None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _revision() -> dict:
    """Commit of the repository, and whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {"commit": None}
    modified = _git("status", "--porcelain", "--untracked-files=no", "--", str(ROOT))
    return {"commit": commit, "modified": bool(modified)}


def _cpu() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware(device="cpu") -> str:
    """The name of the GPU or CPU that a device stands for, and so of what computed a result."""
    import torch

    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def packages() -> dict[str, str | None]:
    """Versions of the packages that decide a result; None for those that are not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def collect() -> dict:
    """Code, versions and time; nothing that identifies the person or the machine."""
    return {
        "code": code(),
        "git": _revision(),
        "python": platform.python_version(),
        "packages": packages(),
        "cores": os.cpu_count(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
