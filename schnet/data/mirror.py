"""A folder, or a URL prefix, that holds upstream files in place of the internet.

It may hold two files of its own at its root:

``SHA256SUMS``
    Checksums that its files must have in place of upstream's. The records say whether a file is
    upstream's all the same.
``MIRROR.yaml``
    What a reader of results made with the mirror has to know: data set (or the part of its name
    before the first ``_``) -> list of sentences. They go into the records and so under the tables.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import yaml

from schnet.errors import ConfigError, SchNetError

TIMEOUT = (3.0, 60.0)  # seconds until a connection is made, and between two pieces of an answer


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


def _text(mirror: str, name: str) -> str:
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


def checksums(mirror: str) -> dict[str, str]:
    """The mirror's own SHA256SUMS: path below the mirror -> digest, empty when it has none."""
    digests = {}
    for line in _text(mirror, "SHA256SUMS").splitlines():
        words = line.split(maxsplit=1)
        if len(words) == 2 and len(words[0]) == 64:
            digests[words[1].strip().lstrip("*")] = words[0]
    return digests


def notes_on(mirror: str, dataset: str) -> list[str]:
    """What the mirror's MIRROR.yaml says of a data set, by its name or that of its family.

    Raises:
        SchNetError: the file is there and is not a mapping of names to lists of sentences.
    """
    where = f"mirror: {mirror.rstrip('/')}/MIRROR.yaml"
    try:
        content = yaml.safe_load(_text(mirror, "MIRROR.yaml")) or {}
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
