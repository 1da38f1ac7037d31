"""Files that are either complete or absent, and digests of what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from schnet.errors import ConfigError, SchNetError


@contextmanager
def atomic(path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    Nothing is left behind when it fails.

    Raises:
        SchNetError: the disk is full, or the directory cannot be written.
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
            raise SchNetError(
                f"{path}: no space left on the disk; free some and run again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise SchNetError(
                f"{path}: cannot be written ({error.strerror}); choose another directory"
            ) from error
        raise


def write_text(path, text: str) -> None:
    """Write a text file, see `atomic`."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value) -> None:
    """Write a JSON file that a person can read, see `atomic`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path, value) -> None:
    """Write a YAML file with the keys in their order, see `atomic`."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def read_json(path) -> Any:
    """Content of a JSON file; ConfigError when it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error


if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:  # libyaml's parser is ten times as fast where PyYAML was built with it
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """YAML without a key twice: the first of the two would be lost."""

    def construct_mapping(self, node, deep=False):
        scalars = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        keys = [key.value for key in scalars if key.value != "<<"]
        twice = next((k for k in keys if keys.count(k) > 1), None)
        if twice is not None:
            message = f"the key {twice!r} occurs twice"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path) -> Any:
    """Content of a YAML file; ConfigError, with line and column, when it is none."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def file_digest(path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()
