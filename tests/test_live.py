"""The live Materials Project, played by a server on loopback."""

import http.server
import json
import threading

import pytest
from conftest import copy_small_workflow, snakemake

from schnet.data import materials_project, materials_project_live
from schnet.data.raw_files import FIRST_FETCH
from schnet.data.store import Store
from schnet.errors import DataError, SchNetError
from schnet.files import file_digest, read_yaml, write_json, write_yaml

KEY = "abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture
def materials_api(monkeypatch, tmp_path):
    """A server on loopback that answers the official client like the Materials Project."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as Pymatgen

    state = {"requests": [], "limited": 2, "broken_batch": None}
    ids = [f"mp-{k}" for k in range(1, 8)]
    structures = {
        m: Pymatgen(
            Lattice.cubic(3.0 + 0.1 * k), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ).as_dict()
        for k, m in enumerate(ids)
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self, code, value):
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            from urllib.parse import parse_qs, urlparse

            url = urlparse(self.path)
            query = {k: v[-1] for k, v in parse_qs(url.query).items()}
            state["requests"].append((url.path, query))
            if url.path.endswith("heartbeat"):
                return self.reply(
                    200,
                    {
                        "status": "OK",
                        "db_version": "2026.10.1",
                        "version": "0.87.0",
                        "access_controlled_batch_ids": [],
                    },
                )
            if self.headers.get("x-api-key") != KEY:
                return self.reply(403, {"detail": "Invalid API key"})
            if state["limited"]:
                state["limited"] -= 1
                return self.reply(429, {"detail": "rate limit"})
            wanted = query.get("material_ids", "").split(",") if query.get("material_ids") else ids
            if (
                state["broken_batch"]
                and state["broken_batch"] in wanted
                and "structure" in query.get("_fields", "")
            ):
                return self.reply(500, {"detail": "database is down"})
            skip, limit = int(query.get("_skip", 0)), int(query.get("_limit", 100))
            if "_page" in query:
                limit = int(query.get("_per_page", 100))
                skip = (int(query["_page"]) - 1) * limit
            fields = query.get("_fields", "material_id").split(",")
            full = [
                {
                    "material_id": m,
                    "structure": structures[m],
                    "formation_energy_per_atom": -0.5 - 0.01 * ids.index(m),
                }
                for m in wanted
            ]
            rows = [{k: d[k] for k in fields if k in d} for d in full]
            self.reply(200, {"data": rows[skip : skip + limit], "meta": {"total_doc": len(rows)}})

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["endpoint"] = f"http://127.0.0.1:{httpd.server_port}/"
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(materials_project_live, "BATCH", 3)
    yield state
    httpd.shutdown()


def test_live_query_through_the_official_client(materials_api, tmp_path):
    materials_api["broken_batch"] = "mp-7"
    with pytest.raises(SchNetError, match="run again to continue"):
        materials_project_live.fetch_live(
            tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
        )
    assert not (tmp_path / "raw" / materials_project.LIVE).exists()
    materials_api["broken_batch"] = None
    seen = len(materials_api["requests"])
    (record,) = materials_project_live.fetch_live(
        tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
    )
    path = tmp_path / "raw" / materials_project.LIVE
    again = [q for p, q in materials_api["requests"][seen:] if "structure" in q.get("_fields", "")]
    assert all(
        "mp-7" in q["material_ids"] for q in again
    )  # finished batches are not asked for again
    assert record["database_version"] == "2026.10.1" and record["query"]["num_elements"] == [1, 8]
    assert record["file"] == path.name and record["bytes"] == path.stat().st_size
    assert record["sha256"] == file_digest(path) and record["checksum_from"] == FIRST_FETCH
    assert [record] == materials_project_live.fetch_live(tmp_path / "raw", progress=False)  # kept
    assert KEY not in "".join(p.read_text() for p in (tmp_path / "raw").rglob("*.json*"))
    about = {"sources": [record]}
    materials_project.convert(tmp_path / "raw", tmp_path / "mp.h5", name="mp", about=about)
    assert len(Store(tmp_path / "mp.h5")) == 7
    with open(path, "a", encoding="utf-8") as f:
        f.write("{}\n")
    with pytest.raises(DataError, match="delete it"):
        materials_project_live.fetch_live(tmp_path / "raw", progress=False)


def test_live_query_up_to_the_table(materials_api, tmp_path, monkeypatch):
    """The whole way of the workflow, with a scale for seven crystals."""
    (tmp_path / "checkout").mkdir()
    checkout = copy_small_workflow(tmp_path / "checkout")
    scale = checkout / "workflow" / "scales" / "small.yaml"
    content = read_yaml(scale)
    content["families"]["materials"] |= {"n_train": {3000: 4, 60000: None}, "n_validation": 1}
    write_yaml(scale, content)
    monkeypatch.setenv("MP_API_ENDPOINT", materials_api["endpoint"])
    settings = ["scale=small", "materials_project=live", "device=cpu", "repeats=1"]
    steps = "run={steps: 20, validation_interval: 10, batch_size: 4}"
    done = snakemake("table_2", "--config", *settings, steps, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (checkout / "results" / "small" / "tables" / "table_2.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| SchNet")]
    assert float(line.split("|")[2]) > 0
    (run,) = (checkout / "results").rglob("run.yaml")
    (source,) = read_yaml(run)["data"]["sources"]
    assert source["database_version"] == "2026.10.1" and source["checksum_from"] == FIRST_FETCH
    log = "".join(p.read_text() for p in checkout.rglob("*") if p.suffix in (".log", ".json"))
    assert KEY not in log + done.stdout + done.stderr


def test_live_file_of_an_older_fetch_gets_a_whole_record(materials_api, tmp_path):
    path = tmp_path / materials_project.LIVE
    path.write_text("{}\n")
    write_json(tmp_path / f"{path.name}.source.json", {"database_version": "2026.1", "url": "x"})
    (record,) = materials_project_live.fetch_live(tmp_path, progress=False)
    assert record["database_version"] == "2026.1" and record["sha256"] == file_digest(path)
    assert materials_api["requests"] == []


def test_key_missing_malformed_or_refused(materials_api, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(SchNetError, match="MP_API_KEY is not set"):
        materials_project_live.fetch_live(tmp_path / "raw")
    monkeypatch.setenv("MP_API_KEY", "short")
    with pytest.raises(SchNetError, match="has 5 characters") as error:
        materials_project_live.fetch_live(tmp_path / "raw")
    wrong = "z" * 32
    monkeypatch.setenv("MP_API_KEY", wrong)
    materials_api["limited"] = 0
    with pytest.raises(SchNetError, match="key was refused") as error:
        materials_project_live.fetch_live(
            tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
        )
    assert wrong not in str(error.value)
    assert not (tmp_path / "raw" / materials_project.LIVE).exists()
