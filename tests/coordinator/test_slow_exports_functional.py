"""An export that takes long holds up nobody else."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.data import atlas
from app.coordinator.execution import job_work
from app.coordinator.execution.workspace import Workspace
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import PATIENCE, running, status_of
from tests.coordinator.scripts import WAITS

_SCRIPT = """
    import os
    open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "w").close()
"""


def _first_is_slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Tells when the first registration has begun; it takes until the other event is set."""
    started, may_end = threading.Event(), threading.Event()
    digest = atlas._digest

    def slow(*given: Any) -> str:
        if not started.is_set():
            started.set()
            may_end.wait()
        return digest(*given)

    monkeypatch.setattr(atlas, "_digest", slow)
    return started, may_end


async def test_slow_exports_hold_up_no_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    export = Workspace.export

    def slow(self: Workspace, *given: Any) -> Any:
        may_end.wait()
        return export(self, *given)

    monkeypatch.setattr(Workspace, "export", slow)
    monkeypatch.setattr(job_work, "_PREPARING", 1)
    monkeypatch.setattr(job_work, "_EXPORTING", 1)
    async with running(tmp_path) as (_, client):
        try:
            slow_one = await client.submit("print('ready')")
            await client.until_line(slow_one, "exited with status 0")
            other = await client.submit(WAITS)
            await client.until_line(other, "ready")
            assert status_of(await client.job(slow_one)) not in ("COMPLETED", "FAILED")
        finally:
            may_end.set()
        assert status_of(await client.end(slow_one)) == "COMPLETED"


async def test_slow_exports_hold_up_no_export_of_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, may_end = _first_is_slow(monkeypatch)
    monkeypatch.setattr(job_work, "_EXPORTING", 1)
    async with running(tmp_path) as (_, client):
        try:
            output = {"register_model": True, "model_name": "slow"}
            slow_one = await client.submit(_SCRIPT, output_config=output)
            assert await asyncio.to_thread(started.wait, PATIENCE)
            assert status_of(await client.end(await client.submit(_SCRIPT))) == "COMPLETED"
            assert status_of(await client.job(slow_one)) == "EXPORTING"
        finally:
            may_end.set()
        assert status_of(await client.end(slow_one)) == "COMPLETED"


async def test_a_model_whose_registration_takes_long_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, may_end = _first_is_slow(monkeypatch)
    async with running(tmp_path) as (_, client):
        try:
            jobs = []
            for name in ("first", "second"):
                output = {"register_model": True, "model_name": name}
                jobs.append(await client.submit(_SCRIPT, output_config=output))
                assert await asyncio.to_thread(started.wait, PATIENCE)
            assert status_of(await client.end(jobs[1])) == "COMPLETED"
            assert status_of(await client.job(jobs[0])) not in ("COMPLETED", "FAILED")
        finally:
            may_end.set()
        assert status_of(await client.end(jobs[0])) == "COMPLETED"


async def test_a_job_whose_registration_waits_for_another_version_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, may_end = _first_is_slow(monkeypatch)
    output = {"register_model": True, "model_name": "same"}
    async with running(tmp_path) as (_, client):
        try:
            first = await client.submit(_SCRIPT, output_config=output)
            assert await asyncio.to_thread(started.wait, PATIENCE)
            second = await client.submit(_SCRIPT, output_config=output)
            await client.until_status(second, "EXPORTING")
            await client.call("CancelJob", CancelJobRequest(job_id=second))
            assert status_of(await client.end(second)) == "CANCELLED"
            assert status_of(await client.job(first)) == "EXPORTING"
        finally:
            may_end.set()
        assert status_of(await client.end(first)) == "COMPLETED"
