"""The recipes of docs/recipes.md, each as it stands, on a stack."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Stack

PAGE = (PROJECT / "docs/recipes.md").read_text()
BLOCKS = re.findall(r"^```(?:sh|python)\n(#!.*?)^```$", PAGE, re.M | re.S)
Recipe = Callable[[str], list[str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Writes a recipe into a file; the command that runs it."""

    def made(name: str) -> list[str]:
        [text] = [block for block in BLOCKS if f"{name} " in "".join(block.splitlines()[1:2])]
        script = tmp_path / name
        script.write_text(text)
        return [sys.executable if "python" in text.splitlines()[0] else "sh", str(script)]

    return made


def environment(stack: Stack, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "SCAIMIND_URL": f"{stack.url}/v1/modules/scaimind",
        "SCAIMIND_API_KEY": stack.key,
        **more,
    }


@contextmanager
def webhook() -> Iterator[tuple[str, "Queue[str]"]]:
    """A chat that takes messages."""
    told: Queue[str] = Queue()

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", told
        finally:
            server.shutdown()
            thread.join()


def test_a_chat_is_told_when_a_job_ends(stack: Stack, recipe: Recipe) -> None:
    job_id = stack.submit(steps="3")
    with webhook() as (url, told):
        subprocess.run(
            [*recipe("notify"), job_id],
            env=environment(stack, WEBHOOK_URL=url),
            timeout=PATIENCE,
            check=True,
        )
        assert told.get(timeout=PATIENCE) == f"{job_id}: COMPLETED"
        # A job that is not there ends it, too.
        subprocess.run(
            [*recipe("notify"), "job-none"],
            env=environment(stack, WEBHOOK_URL=url),
            timeout=PATIENCE,
            check=True,
        )
        assert told.get(timeout=PATIENCE) == "job-none: JOB_NOT_FOUND"


def test_a_night_has_one_job(stack: Stack, recipe: Recipe, tmp_path: Path) -> None:
    body = {
        "name": "nightly",
        "training_config": {
            "training_type": "FULL_FINETUNE",
            "base_model": {"model_id": "small"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
            "hyperparameters": {"steps": "1"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {},
    }
    (tmp_path / "nightly.json").write_text(json.dumps(body))

    def run() -> str:
        return subprocess.run(
            [*recipe("nightly"), str(tmp_path / "nightly.json")],
            env=environment(stack),
            timeout=PATIENCE,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    first = run()
    assert re.fullmatch(r"job-[0-9a-f]{20}", first)
    assert run() == first


def test_a_tile_follows_the_jobs(stack: Stack, recipe: Recipe, tmp_path: Path) -> None:
    tile = tmp_path / "tile.html"
    process = subprocess.Popen(
        [*recipe("tile"), str(tile)], env=environment(stack), stderr=subprocess.PIPE
    )
    try:
        job_id = stack.submit(steps="3")
        stack.await_status(job_id, "COMPLETED")
        end = time.monotonic() + PATIENCE
        while not (tile.exists() and "COMPLETED" in tile.read_text()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        assert re.search(r"<tr><th>COMPLETED<td>[1-9]", tile.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
