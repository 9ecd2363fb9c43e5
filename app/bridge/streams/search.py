"""Searches of logs, made by the coordinator."""

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from typing_extensions import override

from app.bridge.calls.base import Calls
from app.bridge.calls.log_filters import filter_message
from app.bridge.contract.log_search import SearchCheck
from app.bridge.converters import log_entry
from app.bridge.streams.json_lines import one_line
from app.caller import Caller
from app.hub.searching.results import Found, Match, Searcher
from app.log_filter import LogFilter
from generated.mindcoordinator.v1 import logs_pb2
from generated.mindcoordinator.v1.logs_pb2 import (
    LogMatch,
    SearchJobLogsRequest,
    SearchJobLogsResponse,
)

_ENDS: Final[Mapping[int, str]] = {
    logs_pb2.SEARCH_END_UNSPECIFIED: "",
    logs_pb2.SEARCH_END_EXHAUSTED: "exhausted",
    logs_pb2.SEARCH_END_LIMIT: "limit",
    logs_pb2.SEARCH_END_BUDGET: "budget",
}


class SearchCalls(Calls, Searcher):
    """Searches logs."""

    @override
    def search(
        self, caller: Caller, job_id: str, *, log_filter: LogFilter, before: int, limit: int
    ) -> AsyncGenerator[Found, None]:
        request = SearchJobLogsRequest(
            job_id=job_id, filter=filter_message(log_filter), before_offset=before, limit=limit
        )
        check = SearchCheck(request)

        def read(message: SearchJobLogsResponse) -> Found:
            check.check(message)
            return _found(message, log_filter)

        return self._stream("SearchJobLogs", self._stub.SearchJobLogs, caller, request, read=read)


def _found(message: SearchJobLogsResponse, log_filter: LogFilter) -> Found:
    return Found(
        epoch=message.epoch,
        matches=[_match(each) for each in message.matches if _passes(each, log_filter)],
        scanned_to=message.scanned_to,
        scanned_bytes=message.scanned_bytes,
        # One of a newer contract says that there may be more, too.
        end=_ENDS.get(message.end, "budget"),
    )


def _passes(match: LogMatch, log_filter: LogFilter) -> bool:
    """Whether a match passes, as far as that can be judged at once.

    What is searched for came into the contract together with searches: a coordinator that
    can search knows of it.
    """
    entry = match.entry
    return (
        (not log_filter.ranks or entry.rank in log_filter.ranks)
        and (not log_filter.sources or entry.source in log_filter.sources)
        and (log_filter.since is None or entry.timestamp.ToNanoseconds() >= log_filter.since)
        and (log_filter.until is None or entry.timestamp.ToNanoseconds() < log_filter.until)
    )


def _match(match: LogMatch) -> Match:
    spans = [[span.start, span.end] for span in match.spans]
    data = one_line({"entry": log_entry(match.entry), "spans": spans})
    return Match(match.entry.offset, data)
