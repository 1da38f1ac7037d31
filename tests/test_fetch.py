"""Fetching: right files arrive, wrong ones are refused and leave nothing behind."""

import hashlib
import http.server
import json
import socket
import tarfile
import threading
import time

import numpy as np
import pytest
import yaml

from schnet.data.fetch import fetch, fetch_file
from schnet.errors import DataError, SchNetError


# ---- fetch ---------------------------------------------------------------------------------------
@pytest.fixture
def server(tmp_path):
    """A web server on loopback: files from a dictionary, ``fail`` replies 503 that often first."""
    state = {"files": {}, "fail": 0, "requests": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["requests"].append(self.path)
            if state["fail"]:
                state["fail"] -= 1
                return self.send_error(503)
            content = state["files"].get(self.path)
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + state.get("cut", 0)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()


def entry(server, *names, **more):
    return {"urls": [f"{server['url']}/{n}" for n in names], "mirror": "d/file.bin", **more}


def test_fetch_falls_through_urls_and_retries(server, tmp_path):
    server["files"]["/good"] = b"content"
    server["fail"] = 1
    record = fetch_file(
        "f",
        entry(server, "missing", "good", bytes=7, sha256=hashlib.sha256(b"content").hexdigest()),
        tmp_path,
        progress=False,
        wait=0.01,
    )
    assert (tmp_path / "f").read_bytes() == b"content" and record[
        "checksum_from"
    ] == "workflow/sources.yaml"
    before = len(server["requests"])
    fetch_file("f", entry(server, "good", bytes=7), tmp_path, progress=False)
    assert len(server["requests"]) == before  # there already


@pytest.mark.parametrize(
    ("content", "expected", "message"),
    [
        (b"<!DOCTYPE html><html>403 Forbidden", {}, "a web page came instead of data"),
        (b"short", {"bytes": 100}, "5 bytes instead of 100"),
        (b"wrong", {"md5": "0" * 32}, "md5 is"),
        (b"text", {"magic": "504b0304"}, "expected file type"),
    ],
)
def test_wrong_content_is_refused_and_removed(server, tmp_path, content, expected, message):
    server["files"]["/f"] = content
    with pytest.raises(DataError, match=message) as error:
        fetch_file("f", entry(server, "f", **expected), tmp_path, progress=False, wait=0.01)
    assert "by hand" in str(error.value) and list(tmp_path.iterdir()) == []


def test_connection_that_breaks_off_leaves_nothing(server, tmp_path):
    server["files"]["/f"], server["cut"] = b"x" * 100, 50
    with pytest.raises(DataError, match="could not be fetched"):
        fetch_file("f", entry(server, "f"), tmp_path, progress=False, wait=0.01)
    assert list(tmp_path.iterdir()) == []


def test_first_fetch_is_remembered_and_a_difference_refused(server, tmp_path):
    server["files"]["/f"] = b"one"
    assert (
        "recorded at first fetch"
        in fetch_file("f", entry(server, "f"), tmp_path, progress=False)["checksum_from"]
    )
    (tmp_path / "f").unlink()
    server["files"]["/f"] = b"two"
    with pytest.raises(DataError, match="sha256 is"):
        fetch_file("f", entry(server, "f"), tmp_path, progress=False, wait=0.01)


def npz(tmp_path):
    np.savez(tmp_path / "whole.npz", R=np.arange(1000.0), z=np.arange(9))
    return (tmp_path / "whole.npz").read_bytes()


def targz(tmp_path):
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tar:
        tar.add(__file__, "file")
    return (tmp_path / "whole.tar.gz").read_bytes()


@pytest.mark.parametrize("pack", [npz, targz])
@pytest.mark.parametrize("way", ["upstream", "mirror", "by hand"])
def test_archive_cut_off_is_not_remembered(server, tmp_path, pack, way):
    """Without a published checksum, too: the good file comes through afterwards."""
    content, out = pack(tmp_path), tmp_path / "out"
    out.mkdir()
    (tmp_path / "d").mkdir()

    def place(data):
        server["files"]["/f"] = data
        (tmp_path / "d" / "file.bin").write_bytes(data)
        if way == "by hand":
            (out / "f").write_bytes(data)

    mirror = str(tmp_path) if way == "mirror" else None
    e = entry(server, "f", magic=content[:2].hex())
    for wrong in (content[:-40], content[:100] + b"!" + content[101:]):
        place(wrong)
        with pytest.raises(DataError, match="archive damaged or cut off"):
            fetch_file("f", e, out, mirror=mirror, progress=False, wait=0.01)
        assert not (out / "f.source.json").exists()
    place(content)
    record = fetch_file("f", e, out, mirror=mirror, progress=False)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("by_hand", [False, True])
def test_refusal_of_a_changed_file_names_its_record(server, tmp_path, by_hand):
    server["files"]["/f"] = b"one"
    fetch_file("f", entry(server, "f"), tmp_path, progress=False)
    server["files"]["/f"] = b"two"
    (tmp_path / "f").write_bytes(b"two") if by_hand else (tmp_path / "f").unlink()
    with pytest.raises(DataError, match="sha256 is .*") as error:
        fetch_file("f", entry(server, "f"), tmp_path, progress=False, wait=0.01)
    record = tmp_path / "f.source.json"
    assert f"delete {record}" in str(error.value)
    record.unlink()
    fetch_file("f", entry(server, "f"), tmp_path, progress=False)
    assert (tmp_path / "f").read_bytes() == b"two"


def test_local_mirror_is_linked(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "f").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    for mirror in (str(tmp_path / "m"), "m", (tmp_path / "m").as_uri()):
        folder = tmp_path / "data" / mirror.replace("/", "_")
        fetch_file("f", {"urls": [], "mirror": "f"}, folder, mirror=mirror)
        assert (folder / "f").resolve() == tmp_path / "m" / "f"
        assert (folder / "f").read_bytes() == b"content"


def test_without_a_network_nothing_is_tried_again(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/f"
        e = {"urls": [url, "http://no-such-host.invalid/f"], "mirror": "d/f"}
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
        with pytest.raises(DataError, match="f could not be fetched") as error:
            fetch_file("f", e, tmp_path, progress=False)
    assert url in str(error.value) and "by hand" in str(error.value)


def test_hand_placed_file_needs_the_right_checksum(tmp_path):
    e = {"urls": [], "mirror": "d/f", "sha256": hashlib.sha256(b"good").hexdigest()}
    (tmp_path / "f").write_bytes(b"good")
    assert fetch_file("f", e, tmp_path)["url"] == "placed by hand"
    (tmp_path / "f").write_bytes(b"bad")
    with pytest.raises(DataError, match="delete the file"):
        fetch_file("f", e, tmp_path)


@pytest.mark.parametrize("remote", [False, True])
def test_mirror_with_its_own_checksums(server, tmp_path, remote):
    folder = tmp_path / "mirror" / "d"
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(b"slice")
    sums = f"{hashlib.sha256(b'slice').hexdigest()}  d/file.bin\n"
    (tmp_path / "mirror" / "SHA256SUMS").write_text(sums)
    server["files"] |= {"/m/d/file.bin": b"slice", "/m/SHA256SUMS": sums.encode()}
    e = {"urls": [], "mirror": "d/file.bin", "md5": "0" * 32, "bytes": 99}
    mirror = server["url"] + "/m" if remote else str(tmp_path / "mirror")
    assert (
        fetch_file("f", e, tmp_path / "out", mirror=mirror, progress=False)["checksum_from"]
        == "mirror"
    )
    (folder / "file.bin").write_bytes(b"other")
    server["files"]["/m/d/file.bin"] = b"other"
    (tmp_path / "out" / "f").unlink()
    with pytest.raises(DataError, match="sha256 is"):
        fetch_file("f", e, tmp_path / "out", mirror=mirror, progress=False, wait=0.01)


def test_faithful_mirror_is_upstream(tmp_path):
    """A mirror's own checksums do not make its files others than upstream's."""
    folder = tmp_path / "mirror" / "d"
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(b"content")
    sums = f"{hashlib.sha256(b'content').hexdigest()}  d/file.bin\n"
    (tmp_path / "mirror" / "SHA256SUMS").write_text(sums)
    mirror = str(tmp_path / "mirror")
    e = {"urls": [], "mirror": "d/file.bin"}
    published = {"md5": hashlib.md5(b"content").hexdigest(), "bytes": 7}
    for _ in range(2):  # fetched, then found there
        record = fetch_file("a", e | published, tmp_path / "out", mirror=mirror, progress=False)
        assert record["checksum_from"] == "workflow/sources.yaml" and record["upstream"] is True
    slices = fetch_file("b", e | {"md5": "0" * 32}, tmp_path / "out", mirror=mirror)
    assert slices["checksum_from"] == "mirror" and slices["upstream"] is False
    unknown = fetch_file("c", e | {"magic": b"con".hex()}, tmp_path / "out", mirror=mirror)
    assert unknown["checksum_from"] == "mirror" and unknown["upstream"] is None


@pytest.mark.parametrize("remote", [False, True])
def test_mirror_says_what_its_files_are(server, tmp_path, remote):
    folder = tmp_path / "mirror"
    folder.mkdir()
    text = yaml.safe_dump({"md17": ["Revised labels."], "md17_ethanol": ["A slice."]})
    server["files"] |= {"/m/file.bin": b"x", "/m/MIRROR.yaml": text.encode()}
    (folder / "file.bin").write_bytes(b"x")
    (folder / "MIRROR.yaml").write_text(text)
    mirror = server["url"] + "/m" if remote else str(folder)
    source = {"files": {"a/f": {"urls": [], "mirror": "file.bin"}}}

    def notes(name):
        (record,) = fetch(name, source, tmp_path / name, mirror=mirror, progress=False)
        assert json.loads((tmp_path / name / "a" / "f.source.json").read_text()) == record
        assert record["file"] == "a/f"
        return record.get("notes")

    assert notes("md17_ethanol") == ["A slice.", "Revised labels."]
    assert notes("md17_uracil") == ["Revised labels."] and notes("qm9") is None


@pytest.mark.parametrize("text", ["- a list\n", "qm9: a sentence\n", "qm9: [\n"])
def test_mirror_with_unreadable_notes(tmp_path, text):
    (tmp_path / "MIRROR.yaml").write_text(text)
    with pytest.raises(SchNetError, match=r"MIRROR\.yaml"):
        fetch("qm9", {"files": {}}, tmp_path / "out", mirror=str(tmp_path))


def test_mirror_that_is_no_folder(tmp_path):
    with pytest.raises(SchNetError, match="is not a folder"):
        fetch_file("f", {"urls": [], "mirror": "x"}, tmp_path, mirror=str(tmp_path / "absent"))
