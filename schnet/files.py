"""Files that are either complete or absent, and digests of what is in them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from schnet.errors import ConfigError, SchNetError

#: what to do about errors of a disk that takes no more
FULL = {
    errno.ENOSPC: "no space left on the disk; free some and run again",
    errno.EDQUOT: "the quota of disk space is used up; free some and run again",
    errno.EFBIG: "larger than a file may become here (`ulimit -f`); raise that and run again",
}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
DISK = (*FULL, *READ_ONLY)  # errors that have nothing to do with what was to be written
FORGOTTEN = 3600  # seconds after which another machine's temporary file counts as left behind


@contextmanager
def scratch(path) -> Iterator[Path]:
    """Yield a path beside ``path`` for a temporary file or folder, which is removed at the end.

    It is removed when the block fails and at SIGTERM, too. What killed processes left behind for
    the same ``path`` is removed before.

    Raises:
        SchNetError: the disk is full, or the directory cannot be written.
    """
    path = Path(path)
    start, end = f".{path.name}.", f".tmp{path.suffix}"
    temporary = path.with_name(f"{start}{platform.node()}-{os.getpid()}{end}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
            if _is_dead(old, old.name[len(start) : -len(end)]):
                _remove(old)
        try:
            with _exit_at_sigterm():
                yield temporary
        finally:
            _remove(temporary)
    except OSError as error:
        if error.errno in FULL:
            raise SchNetError(f"{path}: {FULL[error.errno]}") from error
        if error.errno in READ_ONLY:
            raise SchNetError(
                f"{path}: cannot be written ({error.strerror}); choose another directory"
            ) from error
        raise


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_dead(path: Path, owner: str) -> bool:
    """Whether nobody writes a temporary file any more; ``owner`` is HOST-PID."""
    host, _, number = owner.rpartition("-")
    if host == platform.node() and number.isdecimal():
        try:
            os.kill(int(number), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return int(number) == os.getpid()  # of an earlier process with the same number
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > FORGOTTEN
    return False


def exit_at_signal(number: int, _) -> None:
    """Raise SystemExit: the handler of SIGTERM while temporary files are there."""
    sys.exit(128 + number)


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit where it would end the process without a word."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, exit_at_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def atomic(path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    Nothing is left behind when it fails, see `scratch`.

    Raises:
        SchNetError: ``path`` is a folder, the disk is full, or the directory cannot be written.
    """
    if Path(path).is_dir():
        raise SchNetError(f"{path}: is a folder; name a file in it")
    with scratch(path) as temporary:
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)


def check_picture(path) -> None:
    """Raise ConfigError for a picture whose name says no format that matplotlib writes."""
    from matplotlib.figure import Figure

    formats = sorted(Figure().canvas.get_supported_filetypes())
    if Path(path).suffix.lstrip(".").lower() not in formats:
        raise ConfigError(f"{path}: the name must end in one of .{', .'.join(formats)}")


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
