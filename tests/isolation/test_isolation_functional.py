"""Another tenant's things are not there: every endpoint, every identifier, every kind of caller.

The gateway and the coordinator are the real ones. What a stranger is told of
something that exists is, to the letter, what it is told of something that
does not.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from aiohttp import hdrs, web

from app.api.settings import LimitsSettings
from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.drive.settings import DriveSettings
from app.gateway.components import SETTINGS
from app.gateway.routes import PREFIX, add_routes
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer
from tests.coordinator.harness import SECRET, client_of, config_for, running
from tests.drive.asking import DriveClient
from tests.drive.tus import OCTETS, UPLOADS, Tus, metadata
from tests.isolation.tenants import MARK, Owner, owner_of_everything, strangers, submission
from tests.replicas import Answer, Replica, replica, settings_for

JsonObject = dict[str, Any]

#: Ids of nothing, of the forms that ids have.
UNKNOWN = {
    "live job": "job-00000000000000000000",
    "evaluation": "eval-00000000000000000000",
    "checkpoint": "step-424242",
}

#: What a route needs beside its path.
QUERIES = {"/jobs/{job_id}/logs/search": "?contains=a"}

#: Where no coordinator is.
NOWHERE = UpstreamSettings(
    address="127.0.0.1:1", api_secret=SECRET, read_attempts=1, unary_timeout=5
)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that runs, and who there is."""

    gateway: Replica
    owner: Owner
    strangers: Mapping[str, str]
    #: A job of the strangers' own, with which they may do what they like.
    own_job: str


@asynccontextmanager
async def everything(dsn: str, folder: Path) -> AsyncIterator[World]:
    drive = config_for(folder).drive_root
    async with ScriptedIssuer().running() as issuer, running(folder, cpus=64) as (coordinator, _):
        auth = AuthSettings(issuer=ISSUER, jwks_url=issuer.jwks_url)
        address = f"127.0.0.1:{coordinator.port}"
        settings = settings_for(
            dsn,
            address,
            api_secret=SECRET,
            auth=auth,
            drive=DriveSettings(dir=drive),
            # A stranger asks for every route with every id: far more than anybody may in a burst.
            limits=LimitsSettings(rate=0),
        )
        async with (
            client_of(coordinator.port, drive, "owner") as owners,
            client_of(coordinator.port, drive, "rival") as rivals,
            replica(settings) as gateway,
        ):
            owner = await owner_of_everything(gateway, owners, dsn)
            own_job = await rivals.submit("raise SystemExit(1)")
            await rivals.until_status(own_job, "FAILED")
            others = await strangers(dsn, tenant="rival", now=time.time())
            yield World(gateway, owner, others, own_job)


def routes_with_ids() -> Iterator[tuple[str, str]]:
    """Every route of the application that has an id in its path."""
    app = web.Application()
    add_routes(app)
    for route in app.router.routes():
        path = "" if route.resource is None else route.resource.canonical
        if re.search(r"\{\w+_id\}", path) and path.startswith(PREFIX) and route.method != "HEAD":
            yield route.method, path.removeprefix(PREFIX)


def told(answer: Answer, *sent: str) -> Any:
    """An answer without what differs between any two: the request's id, and what was sent."""
    body = answer.body.decode()
    for text in sent:
        body = body.replace(text, "<sent>")
    parsed = orjson.loads(body)
    assert parsed.pop("meta").keys() == {"request_id"}
    names = sorted(name for name in answer.headers if name != "Content-Length")
    return answer.status, names, parsed


async def walk_paths(world: World, allowed: set[int]) -> int:
    """Try every route with every id of the owner; how many answers there were."""
    count = 0
    for method, path in routes_with_ids():
        for who, token in world.strangers.items():
            nothing = await walk(world, method, path, token, UNKNOWN["live job"])
            assert nothing[0] in allowed, (method, path, who, nothing)
            for what, identifier in world.owner.ids.items():
                found = await walk(world, method, path, token, identifier)
                assert found == nothing, (method, path, who, what)
                count += 1
    return count


async def walk(world: World, method: str, path: str, token: str, identifier: str) -> Any:
    url = re.sub(r"\{\w+_id\}", identifier, path) + QUERIES.get(path, "")
    body: JsonObject | None = {} if method == "POST" else None
    if method == "PATCH":
        body = {"name": "another"}
    return told(await world.gateway.ask(method, url, token=token, json=body), identifier)


def bodies(world: World, ids: Mapping[str, str]) -> dict[str, tuple[str, str, Any]]:
    """Requests that have an id of somebody in their body; of nobody, if the ids are."""
    job, checkpoint = ids["live job"], ids["checkpoint"]
    benchmarks = [{"name": "perplexity", "dataset": "scaidrive://rival/data.jsonl"}]
    return {
        "ticket for logs": ("POST", "/stream-tickets", {"job_id": job, "kind": "logs"}),
        "ticket for metrics": ("POST", "/stream-tickets", {"job_id": job, "kind": "metrics"}),
        "ticket for a search": ("POST", "/stream-tickets", {"job_id": job, "kind": "search"}),
        "ticket for text": (
            "POST",
            "/stream-tickets",
            {"job_id": job, "kind": "logs", "format": "text"},
        ),
        "evaluation of a job": ("POST", "/evaluations", {"job_id": job, "benchmarks": benchmarks}),
        "evaluation of a checkpoint": (
            "POST",
            "/evaluations",
            {"job_id": world.own_job, "checkpoint_id": checkpoint, "benchmarks": benchmarks},
        ),
        "retry from a checkpoint": (
            "POST",
            f"/jobs/{world.own_job}/retry",
            {"checkpoint_id": checkpoint},
        ),
        "resume from a checkpoint": (
            "POST",
            f"/jobs/{world.own_job}/resume",
            {"checkpoint_id": checkpoint},
        ),
    }


async def jobs_of_the_owner(world: World) -> list[bytes]:
    paths = [f"/jobs/{each}" for what, each in world.owner.ids.items() if what.endswith("job")]
    return [(await world.gateway.ask("GET", path, token=world.owner.token)).body for path in paths]


async def status_of_live_job(gateway: Replica, owner: Owner) -> int:
    path = f"/jobs/{owner.ids['live job']}"
    return (await gateway.ask("GET", path, token=owner.token)).status


async def test_nothing_of_another_tenant_is_there(migrated_dsn: str, tmp_path: Path) -> None:
    async with everything(migrated_dsn, tmp_path) as world:
        owner, gateway = world.owner, world.gateway
        before = await jobs_of_the_owner(world)
        async with gateway.watch(job=owner.ids["live job"], token=owner.token) as watching:
            # The feed is there, and open to its owner, while the others try to join.
            assert (await watching.next()).name == "bookmark"
            await streams(world)
            count = await walk_paths(world, {403, 404})
            await ids_in_bodies(world)
            await summaries(world)
            await lists(world)
            await tickets(world)
            await files(world)
            await drive_routes(world)
        # Of ids, routes and callers, none was left out, and nobody has changed anything.
        routes = len(list(routes_with_ids()))
        assert count == routes * len(world.strangers) * len(owner.ids)
        assert await jobs_of_the_owner(world) == before

        # Without a coordinator, a gateway answers from a table that has all tenants' jobs.
        for path in ("/jobs", "/evaluations"):
            assert (await gateway.ask("GET", path, token=owner.token)).status == 200
        alone = replace(gateway.app[SETTINGS], upstream=NOWHERE)
        async with replica(alone) as lonely:
            lonely.http.headers[hdrs.CACHE_CONTROL] = "stale-if-error=3600"
            async with asyncio.timeout(60):
                # What the cache is told is written in the background.
                while await status_of_live_job(lonely, owner) != 200:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.1)
            few = {who: token for who, token in world.strangers.items() if "tenant_" in who}
            world = replace(world, gateway=lonely, strangers=few)
            await walk_paths(world, {403, 404, 503})
            await lists(world, {200, 400, 403, 503})


async def ids_in_bodies(world: World) -> None:
    real = bodies(world, world.owner.ids)
    for what, (method, path, body) in bodies(world, UNKNOWN).items():
        for who, token in world.strangers.items():
            answer = await world.gateway.ask(method, path, token=token, json=body)
            nothing = told(answer, *UNKNOWN.values())
            answer = await world.gateway.ask(method, path, token=token, json=real[what][2])
            found = told(answer, *world.owner.ids.values())
            assert found == nothing, (what, who)
            assert found[0] in (400, 403, 404, 409), (what, who, found)
            if world.own_job not in str((path, body)):
                assert found[0] in (403, 404), (what, who, found)


async def summaries(world: World) -> None:
    """A summary of metrics tells of each job what a job that does not exist is told."""
    for who, token in world.strangers.items():
        told_of: dict[str, tuple[int, bytes]] = {}
        for identifier in (UNKNOWN["live job"], world.owner.ids["live job"]):
            url = f"/metrics-summary?job_id={identifier}&job_id={world.own_job}"
            answer = await world.gateway.ask("GET", url, token=token)
            body = answer.body.replace(identifier.encode(), b"<sent>")
            if answer.status != 200:
                body = b""
            told_of[identifier] = answer.status, body
        nothing, found = told_of.values()
        assert found == nothing, who
        assert found[0] in (200, 403), who
        assert found[0] == 403 or b"JOB_NOT_FOUND" in found[1]


async def lists(world: World, allowed: Collection[int] = (200, 400, 403, 501)) -> None:
    """What lists something lists nothing of another tenant, with or without its page token."""
    secrets = [MARK, *(each for what, each in world.owner.ids.items() if what != "checkpoint")]
    queries: list[tuple[str, dict[str, str]]] = [
        (path, {})
        for path in ("/jobs", "/evaluations", "/queue", "/summary", "/cluster", "/cluster/nodes")
    ]
    # The one node of a coordinator is named by its host; its jobs are not everybody's to know.
    nodes = await world.gateway.ask("GET", "/cluster/nodes", token=world.owner.token)
    if nodes.status == 200:
        queries += [(f"/cluster/nodes/{node['node_id']}", {}) for node in nodes.data["nodes"]]
    queries += [
        ("/data/cache", {}),
        ("/jobs", {"order_by": "name"}),
        ("/jobs", {"status": "FAILED"}),
    ]
    queries += [
        (path, {"page_token": page_token, "page_size": "1"})
        for path in ("/jobs", "/evaluations")
        for page_token in (world.owner.page_token, "nothing")
    ]
    # Of a job of the strangers' own, with a token of the owner's.
    own_checkpoints = f"/jobs/{world.own_job}/checkpoints"
    queries += [(own_checkpoints, {}), (own_checkpoints, {"page_token": world.owner.page_token})]
    for who, token in world.strangers.items():
        for path, query in queries:
            answer = await world.gateway.ask("GET", path, token=token, params=query)
            assert answer.status in allowed, (who, path, query, answer.body)
            leaked = [each for each in secrets if each in answer.body.decode()]
            assert not leaked, (who, path, query, leaked)


async def tickets(world: World) -> None:
    """A ticket of one's own opens no stream of another; that of another not with a token."""
    live = world.owner.ids["live job"]
    for who, token in world.strangers.items():
        body = {"job_id": world.own_job, "kind": "logs"}
        made = await world.gateway.ask("POST", "/stream-tickets", token=token, json=body)
        if made.status == 201:
            for job in (live, UNKNOWN["live job"]):
                secret = made.data["ticket"]
                async with world.gateway.watch(job=job, ticket=secret) as watching:
                    assert (watching.status, watching.error["code"]) == (401, "AUTH_TICKET_INVALID")
        else:
            assert made.status == 403, who
        path = f"/jobs/{live}/logs?ticket={world.owner.ticket}"
        answer = await world.gateway.ask("GET", path, token=token)
        assert answer.status == 400, who


async def streams(world: World) -> None:
    """The stream over many jobs has none of another tenant, named or not, nor its tickets."""
    secrets = [MARK, *(each for what, each in world.owner.ids.items() if what != "checkpoint")]
    live = world.owner.ids["live job"]
    include = "jobs,logs,metrics,nodes,queue"
    async with world.gateway.watch("events", token=world.owner.token, include=include) as own:
        while (await own.next()).name != "synced":
            pass
        # Its places name nothing that could be read.
        bookmark = await own.next()
        assert bookmark.name == "bookmark"
        place = bookmark.id
    for who, token in world.strangers.items():
        told = []
        for job in (live, UNKNOWN["live job"]):
            async with world.gateway.watch("events", token=token, job_id=job) as watching:
                assert watching.status in (403, 404), (who, watching.status)
                told.append((watching.status, watching.error["code"], watching.error["message"]))
        assert told[0] == told[1], who
        queries: list[dict[str, Any]] = [
            {"include": include},
            {"include": include, "last_event_id": place},
            {"include": include, "label": f"project={MARK}"},
        ]
        for query in queries:
            async with world.gateway.watch("events", token=token, **query) as watching:
                assert watching.status in (200, 403), (who, query, watching.body)
                if watching.status == 403:
                    continue
                while (await watching.next()).name != "bookmark":
                    pass
                leaked = [each for each in secrets if each in watching.received.decode()]
                assert not leaked, (who, query, leaked)


async def files(world: World) -> None:
    """A file of another tenant is like one that is not there."""
    there, missing = world.owner.file, world.owner.file.replace("data.jsonl", "none.jsonl")
    for who, token in world.strangers.items():

        async def ask(path: str, body: Any, token: str = token) -> Answer:
            return await world.gateway.ask("POST", path, token=token, json=body)

        checks = [await ask("/data/validate", checked(file)) for file in (there, missing)]
        assert checks[0].status in (200, 403), who
        if checks[0].status == 200:
            [found], [nothing] = ([*each.data["validations"]] for each in checks)
            assert not found["accessible"]
            assert found.pop("path") == there
            assert nothing.pop("path") == missing
            assert str(found).replace(there, "") == str(nothing).replace(missing, "")
        jobs = [await ask("/jobs", submission(file)) for file in (there, missing)]
        assert told(jobs[0], there) == told(jobs[1], missing)
        assert jobs[0].status in (400, 403, 404), (who, jobs[0].body)


def checked(file: str) -> dict[str, Any]:
    return {"data_sources": [{"path": file, "format": "jsonl"}]}


def routes_of_the_drive() -> set[tuple[str, str]]:
    """Every route of the drive."""
    app = web.Application()
    add_routes(app)
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v1/drive")
    }


async def drive_routes(world: World) -> None:
    """A file, a folder and an upload of another tenant are like those that are not there."""
    owner = DriveClient(world.gateway, world.owner.token)
    name = world.owner.file.rpartition("/")[2]
    upload = await Tus(owner).started(f"{MARK}/upload", 4, data=b"ab")
    before = await everything_of(owner, name, upload)
    tried = set()
    for who, token in world.strangers.items():
        stranger = DriveClient(world.gateway, token)
        for method, path in routes_of_the_drive():
            answers = [
                await tried_at(stranger, method, path, *where)
                for where in ((f"{MARK}/{name}", upload), (f"{MARK}/none", UPLOADS + "x" * 22))
            ]
            tried.add((method, path))
            assert answers[0] == answers[1], (who, method, path)
        for place in (f"../owner/{MARK}/{name}", f"%2e%2e/owner/{MARK}/{name}", "..%2Fowner"):
            assert (await stranger.get(place)).status in (400, 403), (who, place)
            assert (await stranger.put(place, b"x")).status in (400, 403), (who, place)
        for folder in ("", MARK, ".uploads", ".uploads/owner"):
            answer = await stranger.get(folder)
            assert answer.status in (200, 403, 404), (who, folder)
            assert world.owner.ids["live job"] not in answer.body.decode()
        ticket = {"kind": "drive", "path": f"{MARK}/{name}"}
        made = await world.gateway.ask("POST", "/stream-tickets", token=token, json=ticket)
        assert made.status in (403, 404), (who, made.body)
    assert tried == routes_of_the_drive()
    assert await everything_of(owner, name, upload) == before


async def tried_at(client: DriveClient, method: str, path: str, name: str, upload: str) -> Any:
    """What a stranger is told at a route; what it made itself is removed again."""
    at = path.replace("{path}", name).replace("/v1/drive-uploads/{upload_id}", upload)
    headers = {"Tus-Resumable": "1.0.0"}
    if at.startswith(UPLOADS):
        headers |= {"Content-Type": OCTETS, "Upload-Offset": "2", "Upload-Length": "4"}
        headers |= {"Upload-Metadata": metadata(path=name), "X-HTTP-Method-Override": "PATCH"}
    answer = await client.ask(method, at, headers=headers, data=b"cd" if method != "GET" else None)
    if method in ("PUT", "POST") and answer.status in (200, 201):
        # Its own, in its own folder.
        await client.delete(name)
        return answer.status
    if method in ("HEAD", "OPTIONS"):
        return answer.status, sorted(each for each in answer.headers if each != "Content-Length")
    return told(answer, name, upload)


async def everything_of(owner: DriveClient, name: str, upload: str) -> Any:
    """What its owner sees of a file, its folder, and an upload."""
    file, folder = await owner.get(f"{MARK}/{name}"), await owner.get(MARK)
    offset = await Tus(owner).offset(upload)
    return file.body, file.headers["ETag"], folder.body, offset
