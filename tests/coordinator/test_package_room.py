"""Room for packages is promised before they are installed; who finds none waits, and none fails."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from app.coordinator.engines.programs import ProgramEnd, ProgramSpec
from app.coordinator.jobs.model import JobRecord, Program, ResourceRequest
from app.coordinator.logs.lines import Line
from app.coordinator.packages import installing
from app.coordinator.packages.base import Base
from app.coordinator.packages.entries import Environment
from app.coordinator.packages.environments import Environments
from app.coordinator.packages.installing import CannotInstall, Installer, InstallLimits
from app.coordinator.packages.uv import PackageSource
from app.files.copying import Abandoned
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

MIB = 1024**2
PATIENCE = 60.0


class Uv:
    """Stands for uv: writes so many bytes for each tenant's packages, when it is let go on."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self.sizes: dict[str, int] = {}
        self.gates: dict[str, threading.Event] = {}
        self.begun: dict[str, threading.Event] = {}
        #: What each that is being made may have now.
        self.allowed: dict[Path, int] = {}
        #: The most that all had and were allowed at once.
        self.most = 0

    def run(
        self, spec: ProgramSpec, *, output: Callable[[bytes], None], abandoned: threading.Event
    ) -> ProgramEnd:
        tenant = (spec.cwd / "requirements.txt").read_text().strip()
        self.allowed[spec.place] = spec.size_bytes
        self.most = max(self.most, sum(self.allowed.values()) + self._environments.size_bytes)
        try:
            if tenant in self.begun:
                self.begun[tenant].set()
                assert self.gates[tenant].wait(PATIENCE)
            if abandoned.is_set():
                raise Abandoned
            size = self.sizes[tenant]
            if size > spec.size_bytes:
                return ProgramEnd(-9, "wrote more than allowed", too_large=True)
            (spec.writable[0] / "file").write_bytes(b"x" * size)
            return ProgramEnd(0)
        finally:
            del self.allowed[spec.place]


class Machine:
    """An installer, and the jobs that ask it, each in a thread."""

    def __init__(self, path: Path, *, limit: int, each: int) -> None:
        self._path = path
        self.environments = Environments(path / "environments", limit_bytes=limit)
        self.environments.open(running=())
        self.uv = Uv(self.environments)
        limits = InstallLimits(timeout=60, size_bytes=each, files=1000, memory_bytes=MIB)
        self.installer = Installer(
            programs=self.uv,
            environments=self.environments,
            source=PackageSource(index="http://nowhere.invalid"),
            limits=limits,
            clock=lambda: 1,
        )
        self.threads = ThreadPoolExecutor(8)
        self.said: dict[str, list[str]] = {}
        self._waiting: dict[str, threading.Event] = {}
        self.abandoned: dict[str, threading.Event] = {}

    def ask(self, job_id: str, tenant: str, size: int) -> "Future[Environment]":
        """Have a job of the tenant ask for packages of that size, which no other one has."""
        project = self._path / "projects" / job_id
        project.mkdir(parents=True)
        wanted = f"{tenant}-{job_id}"
        (project / "requirements.txt").write_text(wanted)
        self.uv.sizes[wanted] = size
        job = JobRecord(
            job_id=job_id,
            tenant_id=tenant,
            user_id="u",
            name="n",
            submission=SubmitJobRequest(),
            resource_request=ResourceRequest(),
            created_at=1,
            updated_at=1,
        )
        self.said[job_id] = []
        self._waiting[job_id] = threading.Event()
        self.abandoned[job_id] = threading.Event()

        def say(line: Line, *, source: str = "coordinator") -> None:
            self.said[job_id].append(line.message)
            if line.message.startswith("Waiting for room"):
                self._waiting[job_id].set()

        return self.threads.submit(
            self.installer.provide,
            job,
            Program(requirements="requirements.txt"),
            project,
            say=say,
            abandoned=self.abandoned[job_id],
        )

    def hold(self, job_id: str, tenant: str) -> None:
        """Have the installation of a job's packages wait."""
        wanted = f"{tenant}-{job_id}"
        self.uv.begun[wanted], self.uv.gates[wanted] = threading.Event(), threading.Event()

    def begins(self, job_id: str, tenant: str) -> None:
        assert self.uv.begun[f"{tenant}-{job_id}"].wait(PATIENCE)

    def let_go(self, job_id: str, tenant: str) -> None:
        self.uv.gates[f"{tenant}-{job_id}"].set()

    def waits(self, job_id: str) -> None:
        assert self._waiting[job_id].wait(PATIENCE), self.said


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    # An empty base: what it has is of no interest here.
    monkeypatch.setattr(installing, "find_base", lambda: Base((), ()))
    monkeypatch.setattr(installing, "_LEAST", MIB)

    def made(*, limit: int, each: int) -> Machine:
        return Machine(tmp_path, limit=limit, each=each)

    return made


def test_two_installations_at_once_stay_within_the_limit(
    machine: Callable[..., Machine],
) -> None:
    one = machine(limit=10 * MIB, each=8 * MIB)
    one.hold("a", "acme")
    first = one.ask("a", "acme", 6 * MIB)
    one.begins("a", "acme")
    # 2 MiB are left, of which it makes what it can.
    second = one.ask("b", "rival", 6 * MIB)
    one.waits("b")
    assert not second.done()
    one.let_go("a", "acme")
    entry = first.result(PATIENCE)
    one.installer.release("a")
    assert second.result(PATIENCE).size_bytes >= 6 * MIB
    assert one.uv.most <= 10 * MIB
    # What the first one had has gone for it.
    assert not entry.path.exists()
    assert one.environments.size_bytes <= 10 * MIB
    assert "The packages need more than the 2 MiB that were left." in one.said["b"]


def test_jobs_of_another_tenant_wait_for_those_that_hold_all_of_it(
    machine: Callable[..., Machine],
) -> None:
    one = machine(limit=10 * MIB, each=10 * MIB)
    held = [one.ask(job_id, "acme", size * MIB) for job_id, size in (("a", 3), ("b", 6))]
    for each in held:
        each.result(PATIENCE)
    waiting = one.ask("c", "rival", 2 * MIB)
    one.waits("c")
    one.installer.release("a")
    assert waiting.result(PATIENCE).tenant_id == "rival"
    assert one.environments.of_job("b") is not None


def test_what_has_to_wait_can_be_cancelled(machine: Callable[..., Machine]) -> None:
    one = machine(limit=4 * MIB, each=4 * MIB)
    one.ask("a", "acme", 3 * MIB + MIB // 2).result(PATIENCE)
    waiting = one.ask("b", "rival", MIB)
    one.waits("b")
    one.abandoned["b"].set()
    with pytest.raises(Abandoned):
        waiting.result(PATIENCE)
    # Nothing is promised to it any more.
    one.installer.release("a")
    one.ask("c", "rival", 3 * MIB).result(PATIENCE)


def test_what_is_larger_than_the_limits_allow_fails(machine: Callable[..., Machine]) -> None:
    one = machine(limit=10 * MIB, each=4 * MIB)
    with pytest.raises(CannotInstall, match="environment_bytes"):
        one.ask("a", "acme", 5 * MIB).result(PATIENCE)
    one = machine(limit=3 * MIB, each=8 * MIB)
    with pytest.raises(CannotInstall, match="environment_bytes"):
        one.ask("b", "acme", 5 * MIB).result(PATIENCE)


def test_a_job_does_not_wait_for_what_it_has_itself(machine: Callable[..., Machine]) -> None:
    """Its requirements, or the base, have changed since it was prepared the first time."""
    one = machine(limit=4 * MIB, each=4 * MIB)
    one.ask("a", "acme", 3 * MIB + MIB // 2).result(PATIENCE)
    project = one._path / "projects/a"
    project.rename(project.with_name("former"))
    assert one.ask("a", "other", 3 * MIB).result(PATIENCE).tenant_id == "other"


def test_many_tenants_at_once_never_have_more_than_there_is(
    machine: Callable[..., Machine],
) -> None:
    one = machine(limit=12 * MIB, each=8 * MIB)
    jobs = [(f"job-{number}", f"tenant-{number % 5}") for number in range(15)]

    def done(job_id: str) -> "Callable[[Future[Environment]], None]":
        return lambda _: one.installer.release(job_id)

    asked = []
    for number, (job_id, tenant) in enumerate(jobs):
        future = one.ask(job_id, tenant, (1 + number % 4) * MIB)
        future.add_done_callback(done(job_id))
        asked.append(future)
    for each in asked:
        each.result(PATIENCE)
    assert one.uv.most <= 12 * MIB
    assert one.environments.size_bytes <= 12 * MIB
