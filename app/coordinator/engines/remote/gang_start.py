"""Starts the parts of a run: all of them, or none."""

import asyncio
from typing import Final

import structlog

from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote.calls import AnotherProtocol, DriverAway, NodeLost
from app.coordinator.engines.remote.gang import Gang, all_of
from app.coordinator.failures import FailureBackoff
from app.coordinator.scheduling.transitions import RunEnd

#: Seconds: the longest pause between two attempts to reach a driver or an agent.
LONGEST_PAUSE: Final = 2.0

log = structlog.get_logger("scaimind.coordinator")


async def start_all(gang: Gang) -> RunEnd | None:
    """Start all parts or none; returns how the run ended if it could not be started.

    Nothing of it lives then. Can be done again, whatever was started before.
    """
    try:
        return await _started(gang)
    finally:
        gang.clear_faults(*gang.node_ids)


async def _started(gang: Gang) -> RunEnd | None:
    backoff = FailureBackoff(longest=LONGEST_PAUSE)
    while gang.stop.by_owner is None:
        try:
            await _start(gang)
        except CannotLaunch as error:
            text = f"The run could not be started: {error}."
            await gang.records.say(text, warning=True)
            return await _none_left(gang, RunEnd(exit_code=None, failure=text))
        except NodeLost as error:
            text = f"The run could not be started: node {error}."
            return await _none_left(gang, RunEnd(exit_code=None, failure=text, transient=True))
        except DriverAway as error:
            seconds = backoff.after_failure()
            if backoff.failures == 1 and isinstance(error, AnotherProtocol):
                await gang.records.say(f"The run waits to be started. {error}", warning=True)
            if backoff.worth_a_line:
                log.warning("run_not_started", job_id=gang.job_id, reason=str(error))
            await _pause(gang, seconds)
        else:
            return None
    return await _none_left(gang, RunEnd(exit_code=None, stopped=True))


async def _start(gang: Gang) -> None:
    # All agents are there before anything is started on any node.
    agents = await all_of(*map(gang.open, gang.node_ids))
    address, port = gang.nodes.address(gang.node_ids[0]), agents[0].meeting_port
    await all_of(
        *(
            gang.client.start_run(
                gang.ref(each),
                gang.launched.part(each, address=address, port=port, secrets=gang.secrets),
            )
            for each in gang.node_ids
        )
    )


async def _none_left(gang: Gang, end: RunEnd) -> RunEnd:
    """Return `end` once no part of a run lives that was not started as a whole."""
    await all_of(*(kill_part(gang, node_id) for node_id in gang.node_ids))
    return end


async def kill_part(gang: Gang, node_id: str) -> None:
    """Return once nothing of a part lives: it was ended, or its node is lost for good."""
    backoff = FailureBackoff(longest=LONGEST_PAUSE)
    while True:
        try:
            await gang.client.kill_run(gang.ref(node_id))
        except NodeLost:
            if not await gang.returned(node_id):
                return
        except (DriverAway, CannotLaunch) as error:
            seconds = backoff.after_failure()
            if backoff.worth_a_line:
                log.warning("part_not_ended", job_id=gang.job_id, reason=str(error))
            await asyncio.sleep(seconds)
        else:
            return


async def _pause(gang: Gang, seconds: float) -> None:
    """Wait, unless the run is asked to stop."""
    try:
        async with asyncio.timeout(seconds):
            await gang.stop.news.wait()
    except TimeoutError:
        return
