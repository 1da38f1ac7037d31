"""What is known of a raw file: its checksum, whose it is, and the record kept beside it."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

from schnet.errors import DataError
from schnet.files import file_digest

#: where a record's checksum comes from (``checksum_from``)
PUBLISHED = "workflow/sources.yaml"
MIRROR = "mirror"
FIRST_FETCH = "none published; recorded at first fetch"
MADE_HERE = "made here"  # by schnet.reference
CHECKSUMS = ("sha256", "md5")  # the first one given is checked
BY_HAND, FROM_MIRROR = "placed by hand", "mirror: "  # in place of a record's URL


def verify(path: Path, expected: dict, where: str) -> None:
    """Compare a file with what is known of it.

    Args:
        path: the file.
        expected: any of bytes, sha256, md5 and magic (the first bytes in hexadecimal).
        where: what to call the file in the message.

    Raises:
        DataError: wrong size, checksum or first bytes (an HTML page, a file cut off), or an archive
            without a checksum of its own that is not whole.
    """
    size = path.stat().st_size
    with open(path, "rb") as f:
        head = f.read(512)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{where}: a web page came instead of data (refused or moved?)")
    if "bytes" in expected and size != expected["bytes"]:
        raise DataError(f"{where}: {size:,} bytes instead of {expected['bytes']:,}")
    for algorithm in CHECKSUMS:
        if algorithm in expected:
            digest = file_digest(path, algorithm)
            if digest != expected[algorithm]:
                raise DataError(f"{where}: {algorithm} is {digest}, expected {expected[algorithm]}")
            return
    if "magic" in expected and not head.startswith(bytes.fromhex(expected["magic"])):
        raise DataError(f"{where}: does not look like the expected file type")
    _check_archive(path, head, where)


def _check_archive(path: Path, head: bytes, where: str) -> None:
    """Raise DataError where a zip or gzip file, by its first bytes, is not whole."""
    problem = None
    try:
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                problem = archive.testzip()
        elif head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                while stream.read(1 << 24):
                    pass
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, NotImplementedError) as error:
        problem = str(error)
    if problem:
        raise DataError(f"{where}: archive damaged or cut off ({problem})")


def is_upstream(path: Path, published: dict) -> bool | None:
    """Whether a file is the one that upstream publishes; None when upstream publishes no checksum.

    Args:
        path: the file.
        published: what workflow/sources.yaml says of it (bytes, sha256, md5, magic).
    """
    if not any(algorithm in published for algorithm in CHECKSUMS):
        return None
    try:
        verify(path, published, str(path))
    except DataError:
        return False
    return True


def is_unverified(record: dict) -> bool:
    """Whether only its holder says that a file is upstream's: no checksum was there to compare."""
    by_others = record["url"] == BY_HAND or record["url"].startswith(FROM_MIRROR)
    return by_others and record["checksum_from"] == FIRST_FETCH


def record_of(path: Path) -> Path:
    """Where the record of a raw file lies."""
    return path.with_name(path.name + ".source.json")


def source_record(
    path: Path,
    url: str,
    checksum_from: str,
    *,
    upstream: bool | None = None,
    notes: list[str] | None = None,
    **more,
) -> dict:
    """What is known of a raw file, for sources.json and the tables.

    Args:
        path: the raw file.
        url: where it came from.
        checksum_from: who says which checksum is right (PUBLISHED, MIRROR, FIRST_FETCH, …).
        upstream: whether it has the checksum that upstream publishes, None when there is none.
        notes: sentences that belong under every result made with it.
        more: what else is known, such as a database version; ``file`` for a path with folders.

    Returns:
        file, url, bytes, sha256, checksum_from, upstream, notes (where there are any) and ``more``.
    """
    record = {
        "file": path.name,
        "url": url,
        "bytes": path.stat().st_size,
        "sha256": file_digest(path),
        "checksum_from": checksum_from,
        "upstream": upstream,
        **more,
    }
    if notes:
        record["notes"] = notes
    return record
