"""How an agent's calls go, told without exceptions: they cross what cannot carry those."""

from collections.abc import Awaitable
from typing import Any, Final, TypeAlias

import grpc

from app.coordinator.engines.agent.agent import Superseded
from app.coordinator.engines.engine import CannotLaunch, NeverStarted
from app.coordinator.failures import is_passing
from app.coordinator.settings.coordinator import BadConfig

#: How a call went, one of the words below, and what it returned or a message.
Answer: TypeAlias = tuple[str, Any]
DONE: Final = "done"
#: Not now and not later; a phrase for the job's owner.
IMPOSSIBLE: Final = "impossible"
#: It may work in a moment.
PASSING: Final = "passing"
NOTHING_THERE: Final = "nothing there"
SUPERSEDED: Final = "superseded"
#: Whoever asks does not know this agent's secret.
ANOTHER: Final = "another agent"
#: Whoever asks speaks another protocol than this agent.
ANOTHER_PROTOCOL: Final = "another protocol"

#: What the coordinator is told of those that are not done.
STATUS_CODES: Final = {
    IMPOSSIBLE: grpc.StatusCode.FAILED_PRECONDITION,
    PASSING: grpc.StatusCode.UNAVAILABLE,
    NOTHING_THERE: grpc.StatusCode.DATA_LOSS,
    SUPERSEDED: grpc.StatusCode.ABORTED,
}


async def answer_of(work: Awaitable[Any]) -> Answer:
    """Await what an agent does; raises nothing that is the agent's."""
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
