"""Fetch upstream files: several URLs in order, retries, size and checksum, nothing half-written.

Downloads go through pooch's downloader. A mirror (folder, file:// or URL prefix) is tried instead of the
internet; it may declare its own checksums in a file SHA256SUMS at its root, which is then recorded.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlparse

from schnet.errors import DataError, SchNetError
from schnet.files import atomic, file_digest, read_json, write_json

log = logging.getLogger("schnet")
ATTEMPTS, WAIT = 4, 2.0  # per URL; seconds before the second attempt, doubled each time


def local_folder(mirror: str | None) -> Path | None:
    """The folder a mirror points to, or None for a URL prefix (or no mirror)."""
    if not mirror:
        return None
    parsed = urlparse(mirror)
    if parsed.scheme == "file":
        return Path(parsed.path)
    return None if parsed.scheme in ("http", "https", "ftp") else Path(mirror)


def missing_in_mirror(source: dict, mirror: str | None) -> list[str]:
    """Files of a data set that a local mirror does not hold (empty for remote mirrors and the internet)."""
    folder = local_folder(mirror)
    if folder is None:
        return []
    return [f["mirror"] for f in source.get("files", {}).values() if not f.get("optional") and not (folder / f["mirror"]).exists()]


def _download(url: str, path: Path, progress: bool):
    """One attempt at one URL into ``path``; OSError or requests' errors on failure."""
    parsed = urlparse(url)
    if parsed.scheme in ("", "file"):
        shutil.copyfile(parsed.path if parsed.scheme else url, path)
        return
    import pooch

    pooch.HTTPDownloader(progressbar=progress, timeout=60)(url, str(path), None)


def _manifest(mirror: str, cache: Path) -> dict[str, str]:
    """The mirror's own SHA256SUMS (path -> digest), or nothing when it has none."""
    folder = local_folder(mirror)
    if folder is not None:
        if not folder.is_dir():
            raise SchNetError(f"mirror: {folder} is not a folder; give the folder that holds qm9/, md17/, …")
        text = (folder / "SHA256SUMS").read_text() if (folder / "SHA256SUMS").exists() else ""
    else:
        import requests

        try:
            reply = requests.get(mirror.rstrip("/") + "/SHA256SUMS", timeout=30)
            text = reply.text if reply.ok else ""
        except requests.RequestException as error:
            raise SchNetError(f"mirror: {mirror} cannot be reached ({type(error).__name__})") from error
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    return {words[1].strip().lstrip("*"): words[0] for words in lines if len(words) == 2 and len(words[0]) == 64}


def verify(path: Path, expected: dict, where: str):
    """Raise DataError when a file has the wrong size, checksum or first bytes (an HTML page, a cut-off file)."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        head = f.read(512)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{where}: a web page came instead of data (refused or moved?)")
    if "bytes" in expected and size != expected["bytes"]:
        raise DataError(f"{where}: {size:,} bytes instead of {expected['bytes']:,}")
    for algorithm in ("sha256", "md5"):
        if algorithm in expected:
            digest = file_digest(path, algorithm)
            if digest != expected[algorithm]:
                raise DataError(f"{where}: {algorithm} is {digest}, expected {expected[algorithm]}")
            return
    if "magic" in expected and not head.startswith(bytes.fromhex(expected["magic"])):
        raise DataError(f"{where}: does not look like the expected file type")


def fetch_file(name: str, entry: dict, folder, *, mirror: str | None = None, progress: bool = True, wait: float = WAIT) -> dict:
    """Make ``folder/name`` the verified upstream file and return what is known of it.

    A file placed there by hand is accepted when its checksum is right. Raises DataError with the reason
    for every URL that failed, and removes what was downloaded.
    """
    folder = Path(folder)
    path = folder / name
    record_path = path.with_name(path.name + ".source.json")
    expected = {k: entry[k] for k in ("bytes", "md5", "sha256", "magic") if k in entry}
    declared_by = "workflow/sources.yaml" if len(expected) > ("magic" in expected) else None
    if mirror:
        own = _manifest(mirror, folder)
        if entry["mirror"] in own:
            expected, declared_by = {"sha256": own[entry["mirror"]]}, "mirror"
            if entry.get("sha256") == own[entry["mirror"]] or ("md5" in entry and path.exists() and file_digest(path, "md5") == entry["md5"]):
                declared_by = "workflow/sources.yaml"
    record = read_json(record_path) if record_path.exists() else None
    if declared_by is None and record:
        expected |= {"sha256": record["sha256"]}
        declared_by = "first fetch"
    if path.exists():
        try:
            verify(path, expected, str(path))
        except DataError as error:
            raise DataError(
                f"{error}; delete the file{' (and ' + record_path.name + ' if upstream changed it)' if record else ''} and run again"
            ) from error
        if record and record["sha256"] == file_digest(path):
            return record
        return _record(record_path, path, record["url"] if record else "placed by hand", declared_by)
    if mirror:
        base = local_folder(mirror)
        urls = [str(base / entry["mirror"]) if base is not None else mirror.rstrip("/") + "/" + entry["mirror"]]
    else:
        urls = entry["urls"]
    problems = []
    with atomic(path) as temporary:
        for url in urls:
            for attempt in range(ATTEMPTS):
                try:
                    log.info("fetching %s from %s", name, url)
                    _download(url, temporary, progress)
                    verify(temporary, expected, url)
                    problems = []
                    break
                except FileNotFoundError:
                    problems.append(f"{url}: no such file")
                    break
                except DataError as error:
                    temporary.unlink(missing_ok=True)
                    problems.append(str(error))
                    break  # wrong content: another URL, not another try
                except Exception as error:
                    temporary.unlink(missing_ok=True)
                    if isinstance(error, OSError) and error.errno in (28, 30, 13):
                        raise
                    status = getattr(getattr(error, "response", None), "status_code", None)
                    problems.append(f"{url}: {f'HTTP {status}' if status else type(error).__name__}")
                    if status in (401, 403, 404, 410):
                        break
                    time.sleep(wait * 2**attempt)
            if not problems:
                break
        if problems:
            unique = list(dict.fromkeys(problems))
            raise DataError(
                f"{name} could not be fetched:\n  "
                + "\n  ".join(unique)
                + f"\nPlace the file at {path} by hand, or set mirror: to a folder that has {entry['mirror']}"
            )
        url = url if not mirror else f"mirror: {entry['mirror']}"
    return _record(record_path, path, url, declared_by)


def _record(record_path: Path, path: Path, url: str, declared_by: str | None) -> dict:
    record = {
        "file": path.name,
        "url": url,
        "bytes": path.stat().st_size,
        "sha256": file_digest(path),
        "checksum_from": declared_by or "none published; recorded at first fetch",
    }
    write_json(record_path, record)
    return record


def fetch(name: str, source: dict, folder, *, mirror: str | None = None, progress: bool = True) -> list[dict]:
    """All files of a data set; returns their records (name, URL, size, SHA-256, where the checksum comes from)."""
    return [fetch_file(file, entry, folder, mirror=mirror, progress=progress) for file, entry in source["files"].items()]
