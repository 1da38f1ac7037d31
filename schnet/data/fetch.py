"""Fetch upstream files: several URLs in order, retries, size and checksum, nothing half-written.

Downloads go through pooch's downloader. A mirror (folder, file:// or URL prefix) is tried instead
of the internet. It may hold two files of its own at its root:

``SHA256SUMS``
    Checksums that its files must have in place of upstream's. The records say whether a file is
    upstream's all the same.
``MIRROR.yaml``
    What a reader of results made with the mirror has to know: data set (or the part of its name
    before the first ``_``) -> list of sentences. They go into the records and so under the tables.
"""

from __future__ import annotations

import gzip
import logging
import shutil
import time
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlparse

import yaml

from schnet.errors import ConfigError, DataError, SchNetError
from schnet.files import DISK, atomic, file_digest, read_json, write_json

log = logging.getLogger("schnet")
ATTEMPTS, WAIT = 4, 2.0  # per URL; seconds before the second attempt, doubled each time
TIMEOUT = (3.0, 60.0)  # seconds until a connection is made, and between two pieces of an answer

#: where a record's checksum comes from (``checksum_from``)
PUBLISHED = "workflow/sources.yaml"
MIRROR = "mirror"
FIRST_FETCH = "none published; recorded at first fetch"
MADE_HERE = "made here"  # by schnet.reference
CHECKSUMS = ("sha256", "md5")  # the first one given is checked
GONE = (401, 403, 404, 410)  # HTTP: another attempt at the same URL is of no use
BY_HAND, FROM_MIRROR = "placed by hand", "mirror: "  # in place of a record's URL


def local_folder(mirror: str | None) -> Path | None:
    """The folder a mirror points to, or None for a URL prefix (or no mirror)."""
    if not mirror:
        return None
    parsed = urlparse(mirror)
    if parsed.scheme == "file":
        return Path(parsed.path)
    if parsed.scheme in ("http", "https", "ftp"):
        return None
    return Path(mirror)


def check_mirror(mirror: str | None) -> None:
    """Raise ConfigError where a mirror is a path, but of no folder."""
    folder = local_folder(mirror)
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"mirror: {folder} is not a folder; give the folder that holds qm9/, md17/, …"
        )


def missing_in_mirror(source: dict, mirror: str | None) -> list[str]:
    """Files of a data set that a local mirror lacks (empty for remote mirrors and the internet).

    Args:
        source: the data set's entry of workflow/sources.yaml.
        mirror: folder, URL or None, as in the configuration.
    """
    folder = local_folder(mirror)
    if folder is None:
        return []
    files = source.get("files", {}).values()
    wanted = [f["mirror"] for f in files if not f.get("optional")]
    return [path for path in wanted if not (folder / path).exists()]


def _mirror_text(mirror: str, name: str) -> str:
    """Text of a mirror's own file ``name``, empty when it has none."""
    check_mirror(mirror)
    folder = local_folder(mirror)
    if folder is not None:
        path = folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""
    import requests

    try:
        reply = requests.get(f"{mirror.rstrip('/')}/{name}", timeout=TIMEOUT)
    except requests.RequestException as error:
        raise SchNetError(f"mirror: {mirror} cannot be reached ({type(error).__name__})") from error
    if not reply.ok:
        return ""
    reply.encoding = "utf-8"
    return reply.text


def mirror_checksums(mirror: str) -> dict[str, str]:
    """The mirror's own SHA256SUMS: path below the mirror -> digest, empty when it has none."""
    digests = {}
    for line in _mirror_text(mirror, "SHA256SUMS").splitlines():
        words = line.split(maxsplit=1)
        if len(words) == 2 and len(words[0]) == 64:
            digests[words[1].strip().lstrip("*")] = words[0]
    return digests


def mirror_notes(mirror: str, dataset: str) -> list[str]:
    """What the mirror's MIRROR.yaml says of a data set, by its name or that of its family.

    Raises:
        SchNetError: the file is there and is not a mapping of names to lists of sentences.
    """
    where = f"mirror: {mirror.rstrip('/')}/MIRROR.yaml"
    try:
        content = yaml.safe_load(_mirror_text(mirror, "MIRROR.yaml")) or {}
    except yaml.YAMLError as error:
        raise SchNetError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise SchNetError(f"{where}: must map data sets to lists of sentences")
    found = []
    for key in dict.fromkeys((dataset, dataset.split("_")[0])):
        notes = content.get(key, [])
        if not isinstance(notes, list) or not all(isinstance(n, str) for n in notes):
            raise SchNetError(f"{where}: {key}: must be a list of sentences")
        found += notes
    return found


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
    own = mirror_checksums(mirror).get(entry["mirror"]) if mirror else None
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
    notes = mirror_notes(mirror, name) if mirror else []
    return [
        fetch_file(file, entry, folder, mirror=mirror, progress=progress, notes=notes)
        for file, entry in source["files"].items()
    ]
