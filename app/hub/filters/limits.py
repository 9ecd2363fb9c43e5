"""How many different filters the watchers of a job, and those of a user, may have.

Each is judged for every line of the job: watchers who share one cost no more than one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from app.caller import Caller
from app.errors import RATE_LIMITED, ApiError
from app.hub.core.judging import Judging, judging_of
from app.hub.limits import RETRY_AFTER
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey
from app.log_filter import LogFilter

#: Whose filters are counted: those of a job, or of a user.
Owner: TypeAlias = tuple[str, ...]
#: How many different filters there may be, and whose they are, for people.
_Limit: TypeAlias = tuple[int, str]


class FilterLimits:
    """Counts the watchers of each filter, by job and by user."""

    def __init__(self, *, settings: HubSettings, observer: HubObserver) -> None:
        self._settings = settings
        self._observer = observer
        self._counts: dict[Owner, Counter[LogFilter]] = {}
        #: One object for all who have equal ones: a compiled expression is large.
        self._known: dict[LogFilter, LogFilter] = {}
        self._uses: Counter[LogFilter] = Counter()

    def take(
        self, key: JobKey, caller: Caller, log_filter: LogFilter
    ) -> tuple[LogFilter, Sequence[Owner]]:
        """Count a watcher of a filter; the filter to use, and what `release` is given with it.

        Raises `ApiError` RATE_LIMITED, and counts nothing, if it is one filter too many.
        """
        return self._take(log_filter, self._of_job(key) | self._of_user(caller))

    def take_for_user(
        self, caller: Caller, log_filter: LogFilter
    ) -> tuple[LogFilter, Sequence[Owner]]:
        """Do as `take` does, for a stream whose jobs are counted by `take_for_job`."""
        return self._take(log_filter, self._of_user(caller))

    def take_for_job(self, key: JobKey, log_filter: LogFilter) -> tuple[LogFilter, Sequence[Owner]]:
        """Do as `take` does, for a job that joins a stream."""
        return self._take(log_filter, self._of_job(key))

    def _of_job(self, key: JobKey) -> dict[Owner, _Limit]:
        return {("job", *key): (self._settings.max_filters_per_job, "The open streams of this job")}

    def _of_user(self, caller: Caller) -> dict[Owner, _Limit]:
        if caller.user_id is None:
            return {}
        user = ("user", caller.tenant_id, caller.user_id)
        return {user: (self._settings.max_filters_per_user, "Your open streams")}

    def _take(
        self, log_filter: LogFilter, owners: dict[Owner, _Limit]
    ) -> tuple[LogFilter, Sequence[Owner]]:
        if judging_of(log_filter) is Judging.BY_LEVEL:
            return log_filter, ()
        if not owners:
            return self._known.get(log_filter, log_filter), ()
        for owner, (limit, whose) in owners.items():
            counts = self._counts.get(owner) or Counter()
            if log_filter not in counts and len(counts) >= limit:
                self._observer.watcher_refused("filters")
                raise ApiError(
                    RATE_LIMITED,
                    f"{whose} already use {len(counts)} different filters, which is the limit. "
                    "Use one of the same filters, or close some streams.",
                    retry_after=RETRY_AFTER,
                )
        known = self._known.setdefault(log_filter, log_filter)
        self._uses[known] += 1
        for owner in owners:
            self._counts.setdefault(owner, Counter())[known] += 1
        return known, tuple(owners)

    def release(self, log_filter: LogFilter, owners: Sequence[Owner]) -> None:
        """Undo one `take`."""
        for owner in owners:
            counts = self._counts[owner]
            counts[log_filter] -= 1
            if not counts[log_filter]:
                del counts[log_filter]
            if not counts:
                del self._counts[owner]
        if owners:
            self._uses[log_filter] -= 1
            if not self._uses[log_filter]:
                del self._uses[log_filter], self._known[log_filter]
