"""The actor on a node that has the agent of one run: a detached one, found by its name.

It may be killed at any moment: the run's runner is nobody's child and goes on,
and the next actor of the name finds it by its directory.
"""

import os
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any, TypeAlias

from app.coordinator.engines.agent.agent import RunAgent, Superseded
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.engine import CannotLaunch, NeverStarted
from app.coordinator.failures import is_passing
from app.coordinator.settings.coordinator import BadConfig
from app.coordinator.storage.process_identity import process_identity

#: How a call went, one of the words below, and what it returned or a message.
Answer: TypeAlias = tuple[str, Any]
DONE = "done"
#: Not now and not later; a phrase for the job's owner.
IMPOSSIBLE = "impossible"
#: It may work in a moment.
PASSING = "passing"
NOTHING_THERE = "nothing there"
SUPERSEDED = "superseded"


class AgentHost:
    """Makes an agent's methods callable from elsewhere. No call raises what is the agent's."""

    def __init__(self, settings: bytes, job_id: str, run: int, keeper: int | None = None) -> None:
        """`keeper` is the process of the run's keeper; an actor's parent is Ray's process for the
        node."""
        self._agent = RunAgent(
            NodeSettings.decoded(settings),
            job_id=job_id,
            run=run,
            keeper=process_identity(keeper or os.getppid()),
        )

    async def open(self, term: int) -> Answer:
        """Return a port for the ranks to meet."""
        return await _answer(self._agent.meeting_port(term=term))

    async def start(self, term: int, part: bytes) -> Answer:
        """As `RunAgent.start`."""
        return await _answer(self._agent.start(part, term=term))

    async def records(
        self, term: int, epoch: str, after_line: int, after_snapshot: int, patience: float
    ) -> Answer:
        """As `RunAgent.records`, with the fields of what it returns."""
        kind, value = await _answer(
            self._agent.records(
                term=term,
                epoch=epoch,
                after_line=after_line,
                after_snapshot=after_snapshot,
                patience=patience,
            )
        )
        return kind, asdict(value) if kind == DONE else value

    async def stop(self, term: int, at_once: bool) -> Answer:
        """As `RunAgent.stop`."""
        return await _answer(self._agent.stop(term=term, at_once=at_once))

    async def kill(self, term: int) -> Answer:
        """As `RunAgent.kill`."""
        return await _answer(self._agent.kill(term=term))

    async def forget(self, term: int) -> Answer:
        """As `RunAgent.forget`."""
        return await _answer(self._agent.forget(term=term))

    async def close(self) -> Answer:
        """As `RunAgent.close`."""
        return await _answer(self._agent.close())


async def _answer(work: Awaitable[Any]) -> Answer:
    try:
        return DONE, await work
    except CannotLaunch as error:
        return IMPOSSIBLE, str(error)
    except BadConfig as error:
        return IMPOSSIBLE, f"the node cannot carry runs out: {error}"
    except NeverStarted:
        return NOTHING_THERE, ""
    except Superseded as error:
        return SUPERSEDED, str(error.newest)
    except OSError as error:
        reason = error.strerror or str(error)
        return (PASSING if is_passing(error) else IMPOSSIBLE), reason
