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
    "data": ("data/structures.py", "data/splits.py", "data/store.py"),
}
PACKAGES = ("torch", "numpy", "h5py", "ase", "vesin")


@functools.cache
def code() -> dict[str, str]:
    """SHA-256 of the source files that decide what a training gives, by part (see CODE)."""
    digests = {}
    for part, entries in CODE.items():
        h = hashlib.sha256()
        for entry in entries:
            path = ROOT / entry
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".py", ".h", ".cpp"))
            for file in files:
                h.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
        digests[part] = h.hexdigest()
    return digests


def changed(about: dict) -> list[str]:
    """The parts of the code that have changed since a run with this provenance was trained."""
    return [part for part, digest in code().items() if about["code"].get(part) != digest]


def _git() -> dict:
    def run(*args):
        try:
            return subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit = run("rev-parse", "HEAD")
    return {"commit": commit, "modified": bool(run("status", "--porcelain", "--untracked-files=no", "--", str(ROOT)))} if commit else {"commit": None}


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def collect() -> dict:
    """Code, versions, hardware and time; nothing that identifies the person or the machine."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "code": code(),
        "git": _git(),
        "python": platform.python_version(),
        "packages": versions,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
