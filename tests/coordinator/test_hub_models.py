"""Models that are named as a hub has them: from the cache, or why not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.coordinator.data.drive import BadUrl
from app.coordinator.trainers.hub import Hub

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one model, as Hugging Face's libraries lay it out."""
    folder = tmp_path / "hub/models--acme--tiny"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "blobs/1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    (folder / "refs/v1").write_text(COMMIT)
    (folder / "refs/bad").write_text("../../../etc")
    return tmp_path


def offline(cache: Path, *, network: bool = True) -> Hub:
    return Hub({"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}, network=network)


@pytest.mark.parametrize("revision", ["", "main", "v1", COMMIT])
def test_what_is_in_the_cache_is_found(cache: Path, revision: str) -> None:
    found = offline(cache).find("acme/tiny", revision=revision, environment={})
    assert found is not None
    assert found.path == cache / "hub/models--acme--tiny/snapshots" / COMMIT
    assert found.folder == cache / "hub/models--acme--tiny"


@pytest.mark.parametrize("revision", ["v2", "bad", "f" * 40])
def test_another_revision_is_not_in_it(cache: Path, revision: str) -> None:
    with pytest.raises(BadUrl, match=f"acme/tiny at {revision} is not in this machine's cache"):
        offline(cache).find("acme/tiny", revision=revision, environment={})


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("../tiny", ""),
        ("a/b/c", ""),
        ("acme/..", ""),
        ("", ""),
        ("acme/tiny", "../../x"),
        ("acme/tiny", "a" * 500),
        ("acme/tiny\n", ""),
    ],
)
def test_what_is_no_name_leads_nowhere(cache: Path, name: str, revision: str) -> None:
    with pytest.raises(BadUrl):
        offline(cache).find(name, revision=revision, environment={})


def test_without_a_network_or_a_hub_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadUrl, match="jobs have no network here"):
        Hub({"HF_HOME": str(tmp_path)}, network=False).find("acme/tiny", environment={})
    with pytest.raises(BadUrl, match="HF_HUB_OFFLINE is set"):
        offline(tmp_path).find("acme/tiny", environment={})
    with pytest.raises(BadUrl, match="HF_HUB_OFFLINE is set"):
        Hub({"HF_HOME": str(tmp_path)}, network=True).find(
            "acme/tiny", environment={"HF_HUB_OFFLINE": "true"}
        )
    # A port that nobody listens on.
    nowhere = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:1"}
    with pytest.raises(BadUrl, match=r"the hub cannot be reached: .*refused"):
        Hub(nowhere, network=True).find("acme/tiny", environment={})


@pytest.fixture
def hub_port() -> Iterator[int]:
    """A hub that knows nothing, but answers."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_where_the_hub_answers_the_job_fetches_it(tmp_path: Path, hub_port: int) -> None:
    environ = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{hub_port}"}
    assert Hub(environ, network=True).find("acme/tiny", environment={}) is None
