"""What the coordinator can do beyond the first version of the contract."""

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

from app import errors
from app.bridge.calls.cluster import ClusterCalls
from app.bridge.errors import kinds_of
from app.caller import Caller
from app.errors import ApiError
from app.tasks.single_flight import SingleFlight

#: As `ClusterStatus.features` names them.
Feature: TypeAlias = Literal[
    "delete_job",
    "job_filters",
    "log_filters",
    "log_marks",
    "log_search",
    "metrics_buckets",
    "parent_filter",
    "retry_keys",
    "update_job",
    "validate_only",
    "watch_jobs",
]
#: What an operation that asks for a feature can answer besides.
ERRORS: Final = tuple(sorted(kinds_of("GetClusterStatus"), key=lambda kind: kind.code))
_KNOWN: Final[frozenset[str]] = frozenset(get_args(Feature))


class Features:
    """The coordinator's features, asked for when they are needed and kept for a minute.

    They are the same for every tenant. Whoever asks while a call is on its way
    shares its answer. A failure is not kept: the next request asks again.
    """

    #: Seconds that an answer is kept.
    KEPT: Final = 60.0

    def __init__(
        self, client: ClusterCalls, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._flights: SingleFlight[str, frozenset[str]] = SingleFlight()
        self._announced: frozenset[str] = frozenset()
        self._kept_until: float | None = None

    async def has(self, caller: Caller, feature: Feature) -> bool:
        """Whether the coordinator announces a feature. Raises `ApiError` if it does not answer."""
        return feature in await self._current(caller)

    async def require(self, caller: Caller, feature: Feature) -> None:
        """Raise `ApiError` (NOT_IMPLEMENTED) unless the coordinator announces a feature; as `has`
        besides."""
        if not await self.has(caller, feature):
            raise ApiError(
                errors.NOT_IMPLEMENTED,
                f"The coordinator does not support this: it does not announce {feature}."
                " Ask an operator to update it.",
            )

    async def close(self) -> None:
        """Cancel a call that is on its way."""
        await self._flights.close()

    async def _current(self, caller: Caller) -> frozenset[str]:
        while True:
            if self._kept_until is not None and self._clock() < self._kept_until:
                return self._announced
            shared = self._flights.running("features") is not None
            try:
                return await self._flights.ask(
                    "features", lambda: self._look(caller), name="features of the coordinator"
                )
            except ApiError as error:
                # What was refused to another caller need not be refused to this one.
                if not shared or error.kind.status >= 500 or error.kind.retryable:
                    raise

    async def _look(self, caller: Caller) -> frozenset[str]:
        status = await self._client.get_cluster_status(caller)
        # What else it announces, this gateway cannot ask for: the set is bounded.
        self._announced = _KNOWN.intersection(status["features"])
        self._kept_until = self._clock() + self.KEPT
        return self._announced
