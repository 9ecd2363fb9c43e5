"""An engine's driver, as a process of the coordinator's."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

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
