"""What may happen to a request that comes again: a gateway, its client, and what befalls them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg2
import pytest
import structlog
from aiohttp import web

from app.api.app_keys import SHARED_READS
from app.api.settings import CorsSettings
from app.gateway import components, repeating
from app.gateway.application import create_app
from app.gateway.http_server import Runner
from app.gateway.repeating import RepeatingHandler
from app.gateway.settings import Settings
from app.scaikey.api_keys import NewKey, create_key, revoke_key
from generated.mindcoordinator.v1.cluster_pb2 import ClusterStatus
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_TRAINING, GetJobRequest, Job
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusResponse
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX
from tests.api.raw_server import SAFETY_NET, Answer, Client, RawServer, parse
from tests.api.raw_server import request as written
from tests.scripted_coordinator import Context, Failure, ScriptedCoordinator

JOB = f"{PREFIX}/jobs/j"
#: Seconds; no test depends on how fast it is.
FOR_EVER = 3600.0


def job(revision: int = 7) -> Job:
    return Job(job_id="j", tenant_id="acme", status=JOB_STATUS_TRAINING, revision=revision)


class Gate:
    """An answer of GetJob that waits until it is let through."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, request: GetJobRequest, context: Context) -> Job:
        self.asked.set()
        await self.open.wait()
        return job(8)


@dataclass
class Scene:
    """A gateway, and a client of it whose answers are kept."""

    server: RawServer
    runner: Runner
    coordinator: ScriptedCoordinator
    client: Client
    key: NewKey
    dsn: str
    events: list[Any]
    #: What `components` takes for the time, moved by a test.
    later: list[timedelta]
    #: How often aiohttp read something.
    reads: list[bytes]
    answers: list[Answer] = field(default_factory=list)

    def get(self, *headers: str, path: str = JOB, method: str = "GET") -> bytes:
        return written(
            f"{method} {path} HTTP/1.1", f"Authorization: Bearer {self.key.secret}", *headers
        )

    async def ask(self, data: bytes) -> Answer:
        await self.client.send(data)
        answer = await (self.head() if data.startswith(b"HEAD") else self.client.answer())
        self.answers.append(answer)
        return answer

    async def head(self) -> Answer:
        async with asyncio.timeout(SAFETY_NET):
            [head] = parse(await self.client.reader.readuntil(b"\r\n\r\n"))
            return head

    async def until_logged(self, event: str, count: int = 1) -> None:
        async with asyncio.timeout(SAFETY_NET):
            while self.logged(event) < count:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

    def logged(self, event: str) -> int:
        return sum(each["event"] == event for each in self.events)

    def forget(self) -> None:
        """Have the next read make a call, as a write does."""
        self.server.app[SHARED_READS].forget_all()


Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Situation:
    """What happens; what of it is answered without being read, and with which statuses."""

    act: Act
    statuses: list[int]
    known: int
    change: Callable[[Settings], Settings] = lambda settings: settings
    #: Seconds for which a request waits before it is read.
    waits: float = FOR_EVER


def twice(*headers: str, path: str = JOB, method: str = "GET") -> Act:
    async def act(scene: Scene) -> None:
        for _ in range(2):
            await scene.ask(scene.get(*headers, path=path, method=method))

    return act


def with_ids(*values: str) -> Act:
    """Ask with another id each time, as a proxy does."""

    async def act(scene: Scene) -> None:
        for value in values:
            await scene.ask(scene.get(f"X-Request-ID: {value}"))

    return act


def then(step: Callable[[Scene], Awaitable[None] | None]) -> Act:
    """Ask, have something happen, and ask again."""

    async def act(scene: Scene) -> None:
        await scene.ask(scene.get())
        happened = step(scene)
        if happened is not None:
            await happened
        await scene.ask(scene.get())

    return act


async def revoke(scene: Scene) -> None:
    await scene.until_logged("revocations_listening")
    await asyncio.to_thread(revoke_key, scene.dsn, scene.key.key.key_id)
    await scene.until_logged("api_key_revoked")


def expire(scene: Scene) -> None:
    scene.later[0] = timedelta(hours=2)


async def lose_permissions(scene: Scene) -> None:
    def change() -> None:
        with psycopg2.connect(scene.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE mod_scaimind_api_keys SET roles = '{}', permissions = '{}'"
                " WHERE key_id = %s",
                (scene.key.key.key_id,),
            )

    await asyncio.to_thread(change)
    scene.server.app[components._KEYS].forget(scene.key.key.key_id)


async def lose_permissions_and_notice(scene: Scene) -> None:
    """The key is known by its new permissions when the request comes again."""
    await lose_permissions(scene)
    await scene.ask(scene.get(path=f"{PREFIX}/queue"))


async def write(scene: Scene) -> None:
    """Change the job by another connection."""
    scene.coordinator.answer("CancelJob", job(8))
    scene.coordinator.answer("GetJob", job(8))
    async with scene.server.client() as other:
        await other.send(scene.get("Content-Length: 0", path=f"{JOB}/cancel", method="POST"))
        assert (await other.answer()).status == 200


def fail(scene: Scene) -> None:
    scene.coordinator.answer("GetJob", Failure(grpc.StatusCode.UNAVAILABLE))
    scene.forget()


def hang(scene: Scene) -> None:
    scene.coordinator.answer("GetJob", Gate())
    scene.forget()


def read_again(scene: Scene) -> None:
    scene.forget()


async def asked_again(scene: Scene) -> Gate:
    """Ask, and once more; returns the gate behind which the second answer waits."""
    await scene.ask(scene.get())
    gate = Gate()
    scene.coordinator.answer("GetJob", gate)
    scene.forget()
    await scene.client.send(scene.get())
    async with asyncio.timeout(SAFETY_NET):
        await gate.asked.wait()
    return gate


async def leave(scene: Scene) -> None:
    """The client goes while its answer is read."""
    gate = await asked_again(scene)
    async with asyncio.timeout(SAFETY_NET):
        scene.client.writer.transport.abort()
        while scene.server.connections():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        gate.open.set()
    await scene.until_logged("request", 2)


async def drain(scene: Scene) -> None:
    """The gateway stops while an answer is read."""
    gate = await asked_again(scene)
    async with asyncio.timeout(SAFETY_NET):
        stopping = asyncio.create_task(scene.runner.shutdown())
        assert scene.runner.server is not None
        scene.runner.server.pre_shutdown()
        gate.open.set()
        scene.answers.append(await scene.client.answer())
        assert await scene.client.rest() == b""
        await stopping


async def two_at_once(scene: Scene) -> None:
    await scene.ask(scene.get())
    await scene.client.send(scene.get() * 2)
    scene.answers += [await scene.client.answer() for _ in range(2)]


async def one_behind_another(scene: Scene) -> None:
    """The second comes while the first is being answered."""
    gate = await asked_again(scene)
    await scene.client.send(scene.get(path=f"{PREFIX}/queue"))
    gate.open.set()
    scene.answers += [await scene.client.answer() for _ in range(2)]


def with_an_origin(settings: Settings) -> Settings:
    return replace(settings, cors=CorsSettings(origins=("https://a.example",)))


async def closing(scene: Scene) -> None:
    await scene.ask(scene.get("Connection: close"))
    assert await scene.client.rest() == b""


async def thrice(scene: Scene) -> None:
    for _ in range(3):
        await scene.ask(scene.get())


@asynccontextmanager
async def scene_of(
    situation: Situation,
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Scene]:
    later = [timedelta(0)]
    monkeypatch.setattr(components, "_now", lambda: datetime.now(UTC) + later[0])
    reads: list[bytes] = []
    read = RepeatingHandler.read

    def noted(self: RepeatingHandler, data: bytes) -> None:
        reads.append(data)
        read(self, data)

    monkeypatch.setattr(RepeatingHandler, "read", noted)
    coordinator.answer("GetJob", answers_job)
    coordinator.answer("GetQueueStatus", GetQueueStatusResponse(total_queued=1))
    coordinator.answer("GetClusterStatus", ClusterStatus(total_nodes=1))
    key = await asyncio.to_thread(
        create_key,
        keys.dsn,
        tenant_id="acme",
        user_id="ann",
        roles=["tenant_admin"],
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    changed = situation.change(
        replace(
            settings,
            upstream=replace(settings.upstream, shared_reads=1.0),
            auth=replace(settings.auth, key_ttl=FOR_EVER),
        )
    )
    monkeypatch.setattr(repeating, "_LONGEST_WAIT", situation.waits)
    app = create_app(changed)
    runner = Runner.of(app)
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as events:
        await runner.setup()
        app[SHARED_READS]._kept = FOR_EVER
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            server = RawServer(app, runner)
            async with server.client() as client:
                yield Scene(
                    *(server, runner, coordinator, client, key, keys.dsn, events, later, reads)
                )
        finally:
            await runner.cleanup()
            monkeypatch.undo()


async def answers_job(request: GetJobRequest, context: Context) -> Job:
    if request.job_id != "j":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
    return job()
