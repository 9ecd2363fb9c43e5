"""What agents have said that no agent of this release says: counted, and told of their nodes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from app.coordinator.engines.remote.calls import AnotherProtocol, BadMessage
from app.coordinator.failures import FailureBackoff

#: Seconds: the longest pause before such an agent is asked again.
_LONGEST_PAUSE: Final = 30.0
#: Seconds for which one must have said nothing wrong for the pauses to be short again.
_FORGIVEN: Final = 120.0


class AgentFaults:
    """Of all runs. On one event loop."""

    def __init__(self, *, changed: Callable[[], None]) -> None:
        """`changed` is called when a node has a problem for it, or has none any more."""
        self._changed = changed
        self._counts = Counter({"protocol": 0, "message": 0})
        #: By job and node.
        self._refused: dict[tuple[str, str], str] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How often an agent spoke another protocol, and how often it sent what none sends."""
        return self._counts

    def problem(self, node_id: str) -> str:
        """Return why nothing can start on a node, as sentences; empty if something can."""
        return next((text for (_, node), text in self._refused.items() if node == node_id), "")

    def note(self, job_id: str, node_id: str, error: BadMessage | AnotherProtocol) -> None:
        """Note what an agent of a job's run has done."""
        if isinstance(error, BadMessage):
            self._counts["message"] += 1
            return
        self._counts["protocol"] += 1
        known = self._refused.get((job_id, node_id))
        self._refused[job_id, node_id] = str(error)
        if known != str(error):
            self._changed()

    def clear(self, job_id: str, node_id: str) -> None:
        """Note that an agent speaks the same protocol, or that nobody needs to know."""
        if self._refused.pop((job_id, node_id), None) is not None:
            self._changed()


class Distrust:
    """The pauses before an agent is asked again that has said something wrong: what is right
    between two faults does not make them short."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is in seconds, and never goes back."""
        self._clock = clock
        self._backoff = FailureBackoff(longest=_LONGEST_PAUSE)
        self._last = clock()

    def backoff(self) -> FailureBackoff:
        """Return what counts another fault."""
        now = self._clock()
        if now - self._last > _FORGIVEN:
            self._backoff.reset()
        self._last = now
        return self._backoff
