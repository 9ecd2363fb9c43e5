"""An engine's driver, as a process of the coordinator's."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import structlog.testing

from app.coordinator.engines.remote.driver_process import DriverProcess, DriverRefused


@pytest.mark.parametrize("said", ["hello", "7", "{}", "x" * 100_000])
async def test_a_driver_that_says_something_else_first_is_refused_and_ended(
    tmp_path: Path, said: str
) -> None:
    # What any other exception ended would start no driver again.
    (tmp_path / "odd_driver.py").write_text(
        f"import sys\nprint({said!r}, flush=True)\nsys.stdin.read()\n"
    )
    driver = DriverProcess(
        "odd_driver",
        settings=b"{}\n",
        environment={"PATH": os.defpath, "PYTHONPATH": str(tmp_path)},
        errors=tmp_path / "driver.err",
    )
    with pytest.raises(DriverRefused, match="it has not said whether it serves"):
        await driver.start()
    assert driver.pid is None


async def test_a_driver_that_ends_is_started_again_and_counted(tmp_path: Path) -> None:
    (tmp_path / "sound_driver.py").write_text(
        'import sys\nprint(\'{"problem": ""}\', flush=True)\nsys.stdin.read()\n'
    )
    driver = DriverProcess(
        "sound_driver",
        settings=b"{}\n",
        environment={"PATH": os.defpath, "PYTHONPATH": str(tmp_path)},
        errors=tmp_path / "driver.err",
    )
    await driver.start()
    try:
        first = driver.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(60):
            while driver.pid in (None, first):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.02)
        assert driver.restarts == 1
    finally:
        await driver.close()


async def test_what_a_driver_logs_before_it_serves_does_not_keep_it_from_serving(
    tmp_path: Path,
) -> None:
    """As of two nodes with one name, which it sees before it serves."""
    (tmp_path / "eager_driver.py").write_text(
        'import sys\nprint(\'{"level": "warning", "event": "node_name_taken"}\')\n'
        'print(\'{"problem": ""}\', flush=True)\nsys.stdin.read()\n'
    )
    driver = DriverProcess(
        "eager_driver",
        settings=b"{}\n",
        environment={"PATH": os.defpath, "PYTHONPATH": str(tmp_path)},
        errors=tmp_path / "driver.err",
    )
    with structlog.testing.capture_logs() as logged:
        await driver.start()
        await driver.close()
    assert {"log_level": "warning", "event": "node_name_taken"} in logged


#: Says that it serves, and then what is in the file SAID.
CHATTY = """
import os, sys
print('{"problem": ""}', flush=True)
with open(os.environ["SAID"], "rb") as said:
    sys.stdout.buffer.write(said.read())
sys.stdout.buffer.flush()
sys.stdin.read()
"""


async def test_what_a_driver_says_is_logged_however_much_it_is(tmp_path: Path) -> None:
    node = b'{"timestamp": 1, "level": "error", "event": "node_refused", "node_id": "n1"}\n'
    odd = [b"a library's line\n", b"\xff\xfe\n", b'"text"\n', b"[1]\n", b'{"level": "x"}\n']
    odd += [b'{"level": "__class__", "event": "e"}\n', b"x" * 1_000_000 + b"\n", b"\n"]
    # More than a pipe takes, and an asyncio reader beside it.
    (tmp_path / "said").write_bytes(node * 10_000 + b"".join(odd) + node)
    (tmp_path / "chatty_driver.py").write_text(CHATTY)
    driver = DriverProcess(
        "chatty_driver",
        settings=b"{}\n",
        environment={
            "PATH": os.defpath,
            "PYTHONPATH": str(tmp_path),
            "SAID": str(tmp_path / "said"),
        },
        errors=tmp_path / "driver.err",
    )
    with structlog.testing.capture_logs() as logged:
        await driver.start()
        try:
            async with asyncio.timeout(60):
                # The last one is behind all else.
                while sum("node_id" in each for each in logged) <= 10_000:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.05)
        finally:
            await driver.close()
    assert logged[0] == {"log_level": "error", "event": "node_refused", "node_id": "n1"}
    said = [each["text"] for each in logged if each["event"] == "engine_driver_said"]
    assert "a library's line" in said
    assert max(map(len, said)) <= 2000
