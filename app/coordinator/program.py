"""Runs the coordinator as a program, from start to stop."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from app.coordinator.failures import LeadershipLost
from app.coordinator.server import Coordinator
from app.coordinator.settings.coordinator import CoordinatorConfig
from app.files.descriptors import raise_limit
from app.telemetry.tracing import open_tracer
from app.undumpable import make_undumpable

#: File descriptors that it may need at once: connections, runners, copies, helper processes.
_DESCRIPTORS: Final = 16_384
#: The exit status of a coordinator that no longer leads (sysexits.h, EX_TEMPFAIL): started again,
#: it stands by.
STEPPED_DOWN: Final = 75

log = structlog.get_logger("scaimind.coordinator")


def _step_down(reason: str) -> NoReturn:
    """End the process here and now: another coordinator may lead, and whatever a thread has
    begun must not be finished."""
    os._exit(STEPPED_DOWN)


async def serve(config: CoordinatorConfig, *, ready: Callable[[int], None] | None = None) -> None:
    """Run the coordinator as `app.coordinator.serve` says."""
    # Its environment and memory hold the API secret.
    make_undumpable()
    limit = raise_limit(_DESCRIPTORS)
    if limit is not None and limit < _DESCRIPTORS:
        log.warning(
            "descriptor_limit_too_low",
            limit=limit,
            needed=_DESCRIPTORS,
            advice="Raise the hard limit (ulimit -Hn); below it, jobs and calls may have to wait.",
        )
    loop = asyncio.get_running_loop()
    tracer = open_tracer(service_name="scaimind-coordinator")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await _run(
            Coordinator(
                config, tracer=tracer, listening=ready or (lambda port: None), lost=_step_down
            ),
            stop,
        )
    except LeadershipLost as error:
        log.error("leadership_lost", reason=str(error))
        _step_down(str(error))
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await asyncio.to_thread(tracer.close)


async def _run(coordinator: Coordinator, stop: asyncio.Event) -> None:
    """Run it until `stop` is set, which also ends its waiting for the lead. A start that has gone
    further is waited for: what it has begun is ended in order."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    starting = asyncio.create_task(coordinator.__aenter__(), name="start")
    try:
        await asyncio.wait([stopping, starting], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done() and not coordinator.leads:
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
            return
        await starting
        try:
            await stopping
        finally:
            await coordinator.close()
    finally:
        for task in (starting, stopping):
            task.cancel()
