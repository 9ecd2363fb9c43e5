"""The experiment with a coordinator that lies: what a gateway makes of it, and that it lives on."""

import asyncio
import random
import signal

import aiohttp

from app.gateway.routes import PREFIX
from app.local.ports import internal_port
from scripts.chaos_rig.lies import LIES, LINES, Liar
from scripts.chaos_rig.tally import Tally
from scripts.chaos_rig.watching import PASSING, Watcher
from scripts.chaos_rig.world import TENANT, World, gateway_program

#: Seconds within which a client must be told that something is wrong, or have all lines.
LIMIT = 20.0
#: What a gateway may answer before a stream begins, beside what passes.
_ANSWERS = PASSING | {500}


async def lying(world: World, rng: random.Random, seconds: float) -> Tally:
    """Have clients follow jobs, each of which breaks the contract in its own way, all at once."""
    tally = Tally("lying coordinator")
    port = internal_port("the gateway", range(25000, 30000))
    async with Liar(TENANT) as liar:
        gateway = gateway_program(
            world.folder,
            port,
            dsn=world.postgres.dsn,
            coordinator=liar.port,
            name="gateway lied to",
            SCAIMIND_HUB_OUTAGE_LIMIT="2",
            SCAIMIND_HUB_MESSAGE_TIMEOUT="1",
            SCAIMIND_HUB_LINGER="0",
        )
        await gateway.start()
        names = rng.sample(sorted(LIES), len(LIES))
        watchers = {
            (name, level): Watcher(
                f"http://127.0.0.1:{port}{PREFIX}/jobs/{name}/logs",
                world.key,
                level=level,
                passing=_ANSWERS,
            )
            for name in names
            for level in ("DEBUG", "INFO")
        }
        await asyncio.gather(*(_follow(each) for each in watchers.values()))
        for (name, _), watcher in watchers.items():
            _judge(tally, name, watcher)
        if not gateway.running or not await _healthy(port):
            tally.wrong.append("the gateway does not answer any more")
        await gateway.end(signal.SIGTERM)
    return tally


async def _follow(watcher: Watcher) -> None:
    """Follow until the client is told something, or has all there is."""
    task = asyncio.create_task(watcher.run(), name="witness")
    try:
        async with asyncio.timeout(LIMIT):
            while not (watcher.codes or watcher.refusals or watcher.ended or _whole(watcher)):
                watcher.news.clear()
                await watcher.news.wait()
    except TimeoutError:
        watcher.wrong.append("is told nothing")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _whole(watcher: Watcher) -> bool:
    told = sum(last - first + 1 for first, last in watcher.told)
    return len(watcher.lines) + told >= LINES


def _judge(tally: Tally, name: str, watcher: Watcher) -> None:
    tally.clients += 1
    tally.lines += len(watcher.lines)
    place = 0
    told = {offset for first, last in watcher.told for offset in range(first, min(last, LINES) + 1)}
    tally.told += len(told)
    for offset, message in watcher.lines:
        if offset <= place:
            tally.doubled += 1
        missing = set(range(place + 1, offset)) - told
        if len(missing) > LINES:
            watcher.wrong.append(f"an offset of {offset}")
        else:
            tally.lost += len(missing)
        if message != f"line {offset}":
            watcher.wrong.append("a line that is not the log's")
        place = offset
    tally.wrong += [f"{name}: {text}" for text in watcher.wrong]


async def _healthy(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/health"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status == 200
