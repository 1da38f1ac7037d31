"""HDF5 files that are either complete or absent, also on a full disk and when killed.

HDF5 crashes the process at its end when it could not write or close a file. So it is told of no
failure: the error is kept, and what follows it stays in memory.
"""

from __future__ import annotations

import io
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np

from schnet.files import atomic, exit_at_signal

CHUNK_BYTES = 1 << 18  # a quarter of HDF5's cache of a dataset


def chunk_shape(dtype, shape: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Chunks for a dataset [n, *shape] that grows along its first axis.

    h5py's own choice is some hundred rows, which compress badly and are slow to read.
    """
    row = np.dtype(dtype).itemsize * math.prod(shape)
    return (max(1, CHUNK_BYTES // row), *shape)


class _Unfailing(io.FileIO):
    """A file that takes everything: from the first error on, it keeps in memory what is written.

    Attributes:
        error: what went wrong first.
        kept: offsets and contents of what was written since then.
    """

    error: BaseException | None = None
    kept: list[tuple[int, bytes]]

    def __init__(self, path):
        super().__init__(path, "w+b")
        self.kept = []

    def write(self, data) -> int:
        content, at = memoryview(data), self.tell()
        size = len(content)
        try:
            while len(content) and self.error is None:
                content = content[super().write(content) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self.kept.append((at, bytes(data)))
        return size

    def readinto(self, buffer) -> int:
        view, at = memoryview(buffer), self.tell()
        super().readinto(view)
        for start, content in self.kept:
            first, last = max(at, start), min(at + len(view), start + len(content))
            if first < last:
                view[first - at : last - at] = content[first - start : last - start]
        return len(view)

    def truncate(self, size=None) -> int:
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return size


class GrowingFile(h5py.File):
    """An HDF5 file that is being written, see `atomic_hdf5`."""

    def __init__(self, file: _Unfailing):
        super().__init__(file, "w", libver="latest")
        self._file = file

    def check(self) -> None:
        """Raise what went wrong so far: a full disk, SIGTERM, SIGINT. To be called now and then."""
        if self._file.error is not None:
            raise self._file.error


@contextmanager
def _signals_are_kept(file: _Unfailing) -> Iterator[None]:
    """SIGTERM and SIGINT become the file's error: raised within HDF5, they would crash it."""

    def keep(number, _):
        is_interrupt = number == signal.SIGINT
        file.error = KeyboardInterrupt() if is_interrupt else SystemExit(128 + number)

    raising = (signal.default_int_handler, exit_at_signal)
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    before = {n: h for n in numbers if (h := signal.getsignal(n)) in raising}
    for number in before:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def atomic_hdf5(path) -> Iterator[GrowingFile]:
    """Yield an HDF5 file to be written, which is ``path`` when the block succeeds, see `atomic`.

    Raises:
        SchNetError: the disk is full, or the directory cannot be written.
    """
    with atomic(path) as temporary, _Unfailing(temporary) as file, _signals_are_kept(file):
        with GrowingFile(file) as h5:
            yield h5
        if file.error is not None:
            raise file.error
