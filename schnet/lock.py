"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from schnet.errors import SchNetError

log = logging.getLogger("schnet")
ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB
INTERVAL = 0.5  # seconds between two looks at a lock that another process holds
#: what flock says on file systems that know no locks
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(file, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock, which no other process can have meanwhile; the file is gone afterwards.

    The lock belongs to the open file (flock), so a killed process leaves none behind. On NFS it
    holds between machines. Where the file system knows no locks, a warning is all that is done.

    Args:
        file: of the lock, which tells who holds it. Its directory is made, and removed where
            nothing came of it.
        what: is locked, for the message.
        wait: seconds to wait for another process to end.

    Raises:
        SchNetError: another process holds the lock, and which; or the file cannot be made.
    """
    file = Path(file)
    made = not file.parent.exists()
    until = time.monotonic() + wait
    descriptor = _try(file)
    if descriptor is None and wait:
        log.info("%s: waiting for %s", what, _holder(file))
    while descriptor is None:
        if time.monotonic() >= until:
            raise SchNetError(f"{what}: in use by {_holder(file)}; wait for it or end it")
        time.sleep(INTERVAL)
        descriptor = _try(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if made and not any(file.parent.iterdir()):
            file.parent.rmdir()
        os.close(descriptor)


def _try(file: Path) -> int | None:
    """Descriptor of a file that is locked now, or None where another process has locked it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SchNetError(
            f"{file}: cannot be written ({error.strerror}); choose another directory"
        ) from error
    try:
        fcntl.flock(descriptor, ALONE)
    except OSError as error:
        if error.errno not in UNKNOWN:
            os.close(descriptor)
            return None
        log.warning(
            "%s: this file system knows no locks (%s): nothing else may work here meanwhile",
            file.parent,
            error.strerror,
        )
        return descriptor
    if not _is(file, descriptor):  # its holder has just removed it
        os.close(descriptor)
        return _try(file)
    since = time.strftime("%F %T")
    text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text.encode())
    return descriptor


def _is(file: Path, descriptor: int) -> bool:
    """Whether an open file is still the one with this name."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"


#: files of `arriving`, open until this process ends
_present: list[IO[str]] = []


@contextmanager
def arriving(file) -> Iterator[tuple[IO[str], bool]]:
    """Come to a folder where several processes may work, and be there until this process ends.

    While the block lasts nobody else can find the folder empty. Where the file system knows no
    locks, nobody ever does.

    Args:
        file: for notes to those who come later; made if it is not there.

    Yields:
        The file, open, and whether no other process is there.
    """
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    note = open(file, "a+", encoding="utf-8")
    _present.append(note)
    try:
        fcntl.flock(note, ALONE)
        alone = True
    except OSError:
        alone = False
    note.seek(0)
    yield note, alone
    note.flush()
    with suppress(OSError):
        fcntl.flock(note, fcntl.LOCK_SH)
