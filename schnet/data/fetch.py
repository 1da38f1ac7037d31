"""Fetch upstream files: several URLs in order, retries, size and checksum, nothing half-written.

Downloads go through pooch's downloader. A mirror is tried instead of the internet.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlparse

from schnet.data.mirror import TIMEOUT, checksums, local_folder, notes_on
from schnet.data.raw_files import (
    BY_HAND,
    CHECKSUMS,
    FIRST_FETCH,
    FROM_MIRROR,
    MIRROR,
    PUBLISHED,
    is_upstream,
    record_of,
    source_record,
    verify,
)
from schnet.errors import DataError
from schnet.files import DISK, atomic, read_json, write_json

log = logging.getLogger("schnet")
ATTEMPTS, WAIT = 4, 2.0  # per URL; seconds before the second attempt, doubled each time
GONE = (401, 403, 404, 410)  # HTTP: another attempt at the same URL is of no use


def _download(url: str, path: Path, progress: bool) -> None:
    """One attempt at one URL into ``path``; OSError or requests' errors on failure."""
    parsed = urlparse(url)
    if parsed.scheme in ("", "file"):
        _link(Path(parsed.path if parsed.scheme else url), path)
        return
    import pooch

    pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)(url, str(path), None)


def _link(source: Path, path: Path) -> None:
    """A link to a file of this machine, or a copy where the disk has no links."""
    source = source.resolve(strict=True)
    try:
        path.symlink_to(source)
    except OSError:
        shutil.copyfile(source, path)


def _is_unreachable(error: Exception) -> bool:
    """Whether no connection could be made: no network, no such host, nobody listens."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (ConnectTimeoutError, NewConnectionError))


def _try_url(url: str, path: Path, expected: dict, progress: bool, wait: float) -> list[str]:
    """Download one URL to ``path`` with retries; returns what went wrong, nothing on success."""
    problems: list[str] = []
    for attempt in range(ATTEMPTS):
        try:
            _download(url, path, progress)
            verify(path, expected, url)
            return []
        except FileNotFoundError:
            return [*problems, f"{url}: no such file"]
        except DataError as error:  # wrong content: another URL, not another try
            path.unlink(missing_ok=True)
            return [*problems, str(error)]
        except Exception as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            status = getattr(getattr(error, "response", None), "status_code", None)
            what = f"HTTP {status}" if status else type(error).__name__
            problems.append(f"{url}: {what}")
            if status in GONE or _is_unreachable(error):
                return problems
            if attempt < ATTEMPTS - 1:
                time.sleep(wait * 2**attempt)
    return problems


def _try_urls(
    name: str, urls: list[str], path: Path, expected: dict, progress: bool, wait: float
) -> tuple[str | None, list[str]]:
    """Download the first URL that gives the expected file to ``path``.

    Returns: the URL, None when all failed, and what went wrong on the way.
    """
    problems: list[str] = []
    for url in urls:
        log.info("fetching %s from %s", name, url)
        found = _try_url(url, path, expected, progress, wait)
        if not found:
            return url, []
        problems += found
    return None, problems


def _urls(entry: dict, mirror: str | None) -> list[str]:
    """Where to look for a file: the mirror alone when there is one, upstream's URLs otherwise."""
    if not mirror:
        return entry["urls"]
    folder = local_folder(mirror)
    if folder is not None:
        return [str(folder / entry["mirror"])]
    return [mirror.rstrip("/") + "/" + entry["mirror"]]


def _expectation(entry: dict, mirror: str | None, record: dict | None) -> tuple[dict, str]:
    """What the file must be (see `verify`), and where that checksum comes from.

    A mirror's own checksum goes before the published one, and that of the first fetch is for files
    that have no other.
    """
    own = checksums(mirror).get(entry["mirror"]) if mirror else None
    if own:
        return {"sha256": own}, MIRROR
    published = {k: entry[k] for k in ("bytes", "md5", "sha256", "magic") if k in entry}
    if any(algorithm in published for algorithm in CHECKSUMS):
        return published, PUBLISHED
    if record:
        published["sha256"] = record["sha256"]
    return published, FIRST_FETCH


def fetch_file(
    name: str,
    entry: dict,
    folder,
    *,
    mirror: str | None = None,
    progress: bool = True,
    wait: float = WAIT,
    notes: list[str] | None = None,
) -> dict:
    """Make ``folder/name`` the verified upstream file and return what is known of it.

    A file placed there by hand is accepted when its checksum is right.

    Args:
        name: path of the file below ``folder``.
        entry: its entry of workflow/sources.yaml (urls, mirror, bytes, md5, sha256, magic).
        folder: the data set's folder of raw files.
        mirror: folder or URL prefix that is tried instead of upstream.
        progress: whether to draw a bar.
        wait: seconds before the second attempt at a URL.
        notes: sentences about the file that belong under every result.

    Returns:
        The record, see `source_record`.

    Raises:
        DataError: with the reason for every URL that failed; what was downloaded is removed.
        SchNetError: the mirror cannot be read.
    """
    path = Path(folder) / name
    record_path = record_of(path)
    record = read_json(record_path) if record_path.exists() else None
    expected, checksum_from = _expectation(entry, mirror, record)
    changed = ""
    if record and checksum_from == FIRST_FETCH:
        changed = f"; if upstream changed the file, delete {record_path} too"
    if path.exists():
        url = record["url"] if record else BY_HAND
        try:
            verify(path, expected, str(path))
        except DataError as error:
            raise DataError(f"{error}; delete the file and run again{changed}") from error
    else:
        with atomic(path) as temporary:
            found, problems = _try_urls(
                name, _urls(entry, mirror), temporary, expected, progress, wait
            )
            if not found:
                reasons = "\n  ".join(dict.fromkeys(problems))
                raise DataError(
                    f"{name} could not be fetched:\n  {reasons}\n"
                    f"Place the file at {path} by hand, or set mirror: to a folder that has "
                    f"{entry['mirror']}{changed}"
                )
        url = f"{FROM_MIRROR}{entry['mirror']}" if mirror else found
    upstream = is_upstream(path, entry)
    if upstream:  # a faithful mirror, whatever its own SHA256SUMS says
        checksum_from = PUBLISHED
    record = source_record(path, url, checksum_from, upstream=upstream, notes=notes, file=name)
    write_json(record_path, record)
    return record


def fetch(
    name: str, source: dict, folder, *, mirror: str | None = None, progress: bool = True
) -> list[dict]:
    """All files of a data set.

    Args:
        name: the data set.
        source: its entry of workflow/sources.yaml.
        folder: where the raw files go.
        mirror: folder or URL prefix that is tried instead of upstream.
        progress: whether to draw bars.

    Returns:
        One record per file, see `source_record`.

    Raises:
        DataError, SchNetError: see `fetch_file`.
    """
    notes = notes_on(mirror, name) if mirror else []
    return [
        fetch_file(file, entry, folder, mirror=mirror, progress=progress, notes=notes)
        for file, entry in source["files"].items()
    ]
