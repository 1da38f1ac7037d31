"""Files that are either complete or absent, and digests of what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import yaml

from schnet.errors import ConfigError, SchNetError


@contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    Nothing is left behind when it fails. Raises SchNetError for a full disk or a read-only directory.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
        try:
            yield temporary
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SchNetError(f"{path}: no space left on the disk; free some and run again") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise SchNetError(f"{path}: cannot be written ({error.strerror}); choose another directory") from error
        raise


def write_text(path, text: str):
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path, value):
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error


def read_yaml(path):
    """Content of a YAML file; ConfigError with line and column when it cannot be parsed."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def file_digest(path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()
