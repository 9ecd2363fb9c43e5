"""Experiments around a running job: each breaks something while clients follow the log."""

import asyncio
import glob
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeAlias

from scripts.chaos_rig.tally import Tally
from scripts.chaos_rig.watching import LEVELS, Watcher
from scripts.chaos_rig.world import RATE, Workload, World

#: Breaks something and mends it again. The moment it returns is the end of the fault.
Fault: TypeAlias = Callable[[World, random.Random], Awaitable[None]]

#: Seconds within which lines must come again after a fault, and streams must end behind a job.
RECOVERY = 45.0
#: Where Debian has libfaketime.
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


async def network(world: World, rng: random.Random, seconds: float) -> Tally:
    """Break the networks between gateway and coordinator, and between clients and gateway."""
    faults: Mapping[str, Fault] = {
        "coordinator: reset": _cut_upstream,
        "coordinator: nothing passes": _stall_upstream,
        "coordinator: refused": _refuse_upstream,
        "coordinator: 0.2 s late": _delay_upstream,
        "clients: reset": _cut_downstream,
        "clients: nothing passes": _stall_downstream,
    }
    return await _with_faults(Tally("network"), world, rng, seconds, faults)


async def processes(world: World, rng: random.Random, seconds: float) -> Tally:
    """Kill and stop the processes, one at a time."""
    faults: Mapping[str, Fault] = {
        "coordinator: killed": _kill_coordinator,
        "gateway: killed": _kill_gateway,
        "coordinator: suspended": _suspend_coordinator,
        "PostgreSQL: restarted": _restart_postgres,
    }
    return await _with_faults(Tally("processes"), world, rng, seconds, faults)


async def slow_clients(world: World, rng: random.Random, seconds: float) -> Tally:
    """Let some clients read slowly, or not at all for longer than the write timeout."""
    tally = Tally("slow clients")
    workload = await world.submit(seconds)
    watchers = [
        world.watcher(workload),
        world.watcher(workload, "INFO"),
        *(world.watcher(workload, pause=rng.uniform(0.1, 0.4)) for _ in range(3)),
        *(world.watcher(workload, pause=rng.uniform(4, 6)) for _ in range(2)),
    ]
    await _follow(tally, world, workload, watchers, _nothing)
    return tally


async def shutdown(world: World, rng: random.Random, seconds: float) -> Tally:
    """Stop the gateway as a release does; every client must be told, and come back."""
    tally = Tally("shutdown")
    workload = await world.submit(seconds)
    watchers = [world.watcher(workload, rng.choice(list(LEVELS))) for _ in range(8)]
    watchers.append(world.watcher(workload))

    async def stop_twice() -> None:
        for _ in range(2):
            await _live(watchers[-1], time.time())
            before = [(each, len(each.codes)) for each in watchers if each.is_open]
            status = await world.gateway.end(signal.SIGTERM)
            if status:
                tally.wrong.append(f"the gateway exited with status {status}")
            for each, codes in before:
                await _closed(each)
                if each.codes[codes:] != ["SHUTTING_DOWN"] and not each.ended:
                    tally.wrong.append(f"a shutdown told as {each.codes[codes:]}")
            began = time.time()
            await world.gateway.start()
            tally.recovered("gateway: stopped", await _live(watchers[-1], began))

    await _follow(tally, world, workload, watchers, stop_twice)
    return tally


async def clocks(world: World, rng: random.Random, seconds: float) -> Tally:
    """Set the coordinator's clock forward and back while a job runs."""
    tally = Tally("clocks")
    libraries = glob.glob(FAKETIME)
    if not libraries:
        tally.skipped = "libfaketime is not installed"
        return tally
    workload = await world.submit(seconds, max_runtime_seconds=600)
    watchers = [world.watcher(workload), world.watcher(workload, "ERROR")]

    async def set_clock(offset: str) -> None:
        await world.coordinator.end(signal.SIGKILL)
        await world.coordinator.start(
            LD_PRELOAD=libraries[0], FAKETIME=offset, FAKETIME_DONT_FAKE_MONOTONIC="1"
        )

    async def turn() -> None:
        for offset in rng.sample(("+2h", "-2h"), 2):
            await _live(watchers[0], 0)
            began = time.monotonic()
            await set_clock(offset)
            await _another_line(watchers[0])
            tally.recovered(f"coordinator: clock {offset}", time.monotonic() - began)

    try:
        await _follow(tally, world, workload, watchers, turn)
    finally:
        await world.coordinator.end(signal.SIGKILL)
        await world.coordinator.start()
    return tally


async def many_jobs(world: World, rng: random.Random, seconds: float) -> Tally:
    """Break things while clients follow two jobs in one stream, at two replicas in turn, while
    others follow one as NDJSON, and while one searches it."""
    faults: Mapping[str, Fault] = {
        "clients: reset": _cut_downstream,
        "coordinator: reset": _cut_upstream,
        "coordinator: killed": _kill_coordinator,
        "gateway: killed": _kill_gateway,
    }
    tally = Tally("many jobs")
    began = time.monotonic()
    async with world.replica() as replica:
        workloads = [await world.submit(seconds) for _ in range(2)]
        first, other = workloads
        watchers = [world.watcher(first), *(world.ndjson_watcher(first) for _ in range(2))]
        many = [world.events_watcher(workloads, replica=replica) for _ in range(3)]
        searcher = world.searcher(first)
        following = [asyncio.create_task(each.run(), name="events watcher") for each in many]
        searching = asyncio.create_task(searcher.run(), name="searcher")

        # A connection of each has come and gone between two faults.
        break_things = partial(
            _break_things,
            *(tally, world, rng, faults, watchers[0]),
            until=began + seconds - 4,
            pauses=(0.5, 1.5),
        )
        try:
            await _follow(tally, world, first, watchers, break_things)
            await asyncio.wait(following, timeout=RECOVERY)
        finally:
            await _cancel((*following, searching))
        async with world.client() as client:
            logs = {each.job_id: await client.log(each.job_id) for each in workloads}
        tally.judge_log(other, logs[other.job_id])
        for each in many:
            tally.wrong += each.wrong
            for job_id, got in each.jobs.items():
                tally.judge(got, logs[job_id])
        tally.answers += searcher.searches
        tally.wrong += searcher.wrong
        if not searcher.searches:
            tally.wrong.append("no search came to its end")
    return tally


async def _with_faults(
    tally: Tally,
    world: World,
    rng: random.Random,
    seconds: float,
    faults: Mapping[str, Fault],
) -> Tally:
    """Let each fault happen, in any order, as often as there is time for."""
    began = time.monotonic()
    workload = await world.submit(seconds)
    watchers = [world.watcher(workload, level) for level in LEVELS]
    watchers += [world.watcher(workload) for _ in range(4)]

    break_things = partial(
        _break_things,
        *(tally, world, rng, faults, watchers[0]),
        until=began + seconds - 4,
        pauses=(0.1, 0.5),
    )
    await _follow(tally, world, workload, watchers, break_things)
    return tally


async def _break_things(
    tally: Tally,
    world: World,
    rng: random.Random,
    faults: Mapping[str, Fault],
    watcher: Watcher,
    *,
    until: float,
    pauses: tuple[float, float],
) -> None:
    """Break things in any order until a moment (monotonic), or the end of what is watched.

    Each is over when the watcher has new lines; `pauses` are the bounds of what follows, in
    seconds. Raises `TimeoutError`.
    """
    while True:
        for name in rng.sample(sorted(faults), len(faults)):
            if time.monotonic() > until or watcher.ended:
                return
            await faults[name](world, rng)
            tally.recovered(name, await _live(watcher, time.time()))
            await asyncio.sleep(rng.uniform(*pauses))


async def _follow(
    tally: Tally,
    world: World,
    workload: Workload,
    watchers: Sequence[Watcher],
    disturb: Callable[[], Awaitable[None]],
) -> None:
    """Have clients follow a job while it is disturbed, to its end; then judge what they got."""
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(each.run(), name="watcher") for each in watchers]
        asker = world.asker(workload)
        asking = asyncio.create_task(asker.run(), name="asker")
        stack.push_async_callback(_cancel, (*tasks, asking))
        try:
            await disturb()
        except TimeoutError:
            tally.wrong.append(f"no line for {RECOVERY:g} s")
        lasts = workload.lines / RATE + RECOVERY
        await asyncio.wait(tasks, timeout=lasts)
        async with world.client() as client:
            try:
                log = await client.log(workload.job_id)
            except TimeoutError:
                tally.wrong.append("the job does not end")
                return
    await asker.check_end(RECOVERY)
    tally.answers += asker.answers
    tally.wrong += asker.wrong
    tally.judge_log(workload, log)
    for each in watchers:
        tally.judge(each, log)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _live(watcher: Watcher, moment: float) -> float:
    """Wait for a line that was written after a moment; seconds. Raises `TimeoutError`."""
    async with asyncio.timeout(RECOVERY):
        return await watcher.live_since(moment)


async def _another_line(watcher: Watcher) -> None:
    """Wait for a line, whatever its time. Raises `TimeoutError`."""
    seen = len(watcher.lines)
    async with asyncio.timeout(RECOVERY):
        while len(watcher.lines) == seen and not watcher.ended:
            watcher.news.clear()
            await watcher.news.wait()


async def _closed(watcher: Watcher) -> None:
    """Wait until a client has read its stream to the end. Raises `TimeoutError`."""
    async with asyncio.timeout(RECOVERY):
        while watcher.is_open:
            watcher.news.clear()
            await watcher.news.wait()


async def _nothing() -> None:
    """Disturb nobody."""


async def _cut_upstream(world: World, _: random.Random) -> None:
    world.upstream.cut()


async def _stall_upstream(world: World, rng: random.Random) -> None:
    world.upstream.stall()
    await asyncio.sleep(rng.uniform(0.5, 6))
    world.upstream.resume()


async def _refuse_upstream(world: World, rng: random.Random) -> None:
    world.upstream.refusing = True
    world.upstream.cut()
    await asyncio.sleep(rng.uniform(0.5, 3))
    world.upstream.refusing = False


async def _delay_upstream(world: World, rng: random.Random) -> None:
    world.upstream.delay = 0.2
    await asyncio.sleep(rng.uniform(1, 2))
    world.upstream.delay = 0


async def _cut_downstream(world: World, _: random.Random) -> None:
    world.downstream.cut()


async def _stall_downstream(world: World, rng: random.Random) -> None:
    world.downstream.stall()
    await asyncio.sleep(rng.uniform(0.5, 4))
    world.downstream.resume()


async def _kill_coordinator(world: World, rng: random.Random) -> None:
    await world.coordinator.end(signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0, 1))
    await world.coordinator.start()


async def _kill_gateway(world: World, rng: random.Random) -> None:
    await world.gateway.end(signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0, 1))
    await world.gateway.start()


async def _suspend_coordinator(world: World, rng: random.Random) -> None:
    world.coordinator.send(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.5, 3))
    world.coordinator.send(signal.SIGCONT)


async def _restart_postgres(world: World, _: random.Random) -> None:
    await world.restart_postgres()
