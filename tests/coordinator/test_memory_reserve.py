"""When memory is short, jobs that asked for none are ended: the newest first, one at a time."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.states import Status
from app.coordinator.resources.memory_reserve import (
    READINGS,
    SETTLING,
    MemoryReserve,
    available_memory,
    newest_without_memory,
)
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

MIB = 1024**2
RESERVE = 100 * MIB


def job(job_id: str, started: int, memory: int = 0, status: Status = Status.TRAINING) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        tenant_id="t",
        user_id="u",
        name="n",
        submission=SubmitJobRequest(),
        resource_request=ResourceRequest(memory=memory),
        created_at=1,
        updated_at=1,
        status=status,
        run_started_at=started,
    )


class Machine:
    """Jobs, and what they leave of the memory."""

    def __init__(self, *jobs: JobRecord) -> None:
        self.jobs = {each.job_id: each for each in jobs}
        self.available = RESERVE
        self.now = 0.0
        self.ended: list[str] = []
        self.reasons: list[str] = []
        self.reserve = MemoryReserve(
            RESERVE,
            jobs=lambda: self.jobs.values(),
            end=self._end,
            available=lambda: self.available,
            clock=lambda: self.now,
        )

    def _end(self, job_id: str, reason: str) -> None:
        self.ended.append(job_id)
        self.reasons.append(reason)
        self.jobs[job_id] = replace(self.jobs[job_id], stop_reason=StopReason.MEMORY)

    def look(self, times: int) -> None:
        for _ in range(times):
            self.reserve.look()


def test_who_goes_first() -> None:
    first, second, asked = job("a", 1), job("b", 2), job("c", 3, memory=1)
    assert newest_without_memory([]) is None
    assert newest_without_memory([asked]) is None
    assert newest_without_memory([second, first, asked]) is second
    leaving = replace(second, stop_reason=StopReason.PAUSE)
    waiting = job("d", 9, status=Status.QUEUED)
    exporting = job("e", 9, status=Status.EXPORTING)
    assert newest_without_memory([leaving, first, waiting, exporting]) is first


def test_nobody_is_ended_for_a_moment() -> None:
    machine = Machine(job("a", 1))
    for _ in range(5):
        machine.available = RESERVE - 1
        machine.look(READINGS - 1)
        machine.available = RESERVE
        machine.look(1)
    assert machine.ended == []


def test_one_is_ended_and_the_next_only_when_that_has_not_helped() -> None:
    machine = Machine(job("a", 1), job("b", 2), job("asked", 3, memory=1))
    machine.available = RESERVE - 1
    machine.look(100)
    assert machine.ended == ["b"]
    assert "less than 100 MiB" in machine.reasons[0]
    assert "memory_bytes" in machine.reasons[0]

    del machine.jobs["b"]
    machine.look(100)
    machine.now += SETTLING / 2
    machine.look(100)
    assert machine.ended == ["b"], "what it had may not be back yet"

    machine.now += SETTLING
    machine.look(READINGS - 1)
    assert machine.ended == ["b"]
    machine.look(100)
    assert machine.ended == ["b", "a"]

    del machine.jobs["a"]
    machine.look(1)
    machine.now += 2 * SETTLING
    machine.look(100)
    assert machine.ended == ["b", "a"], "who asked for memory has it"


def test_a_job_that_runs_again_can_be_ended_again() -> None:
    machine = Machine(job("a", 1))
    machine.available = 0
    machine.look(READINGS)
    machine.jobs["a"] = job("a", 1, status=Status.QUEUED)
    machine.look(1)
    machine.now += 2 * SETTLING
    machine.jobs["a"] = job("a", 2)
    machine.look(READINGS)
    assert machine.ended == ["a", "a"]


def test_a_job_that_could_not_be_ended_is_tried_again() -> None:
    machine = Machine(job("a", 1))
    machine.available = 0
    end, machine.reserve._end = machine.reserve._end, _fails
    for _ in range(3):
        with suppress(OSError):
            machine.look(READINGS)
    machine.reserve._end = end
    machine.look(1)
    assert machine.ended == ["a"]


def _fails(_job_id: str, _reason: str) -> None:
    raise OSError("the disk is full")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/old\n0::/pod/own\n")
    return tmp_path / "proc"


def _group(path: Path, limit: str, current: int, inactive: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{current}\n")
    (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


def test_what_is_available(tmp_path: Path, proc: Path) -> None:
    groups = tmp_path / "groups"
    assert available_memory(groups, proc) == 5000 * 1024
    _group(groups / "pod" / "own", "max", 7, 0)
    assert available_memory(groups, proc) == 5000 * 1024
    _group(groups / "pod", str(4 * MIB), 3 * MIB, 1 * MIB)
    assert available_memory(groups, proc) == 2 * MIB
    _group(groups / "pod" / "own", str(MIB), 2 * MIB, 0)
    assert available_memory(groups, proc) == 0


def test_this_machine_has_some() -> None:
    assert available_memory() > 0
