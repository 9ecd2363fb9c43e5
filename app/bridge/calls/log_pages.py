"""Calls that read a page of a log, piece by piece: what is live does not wait for a whole page."""

from typing import Any

import grpc

from app.bridge.calls.base import Calls
from app.bridge.channel import SERVICE
from app.bridge.metadata import call_metadata
from app.bridge.observed_call import ObservedCall
from app.bridge.sent import Asked
from app.bridge.streams.log_pages import page_pieces
from app.bridge.streams.log_records import LogRecords
from app.bridge.transport.reading_channel import reader_on
from app.caller import Caller
from app.hub.upstream import LogPage
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest, ListJobLogsResponse


class LogPageCalls(Calls):
    """Reads pages of logs."""

    def __init__(
        self, *, channel: grpc.aio.Channel, turns: Turns | None = None, **given: Any
    ) -> None:
        """`turns` are those in which pages are read; by default, its own."""
        super().__init__(channel=channel, **given)
        self._turns = turns or Turns()
        self._records = LogRecords()
        self._parse_page = reader_on(channel, ListJobLogsResponse.FromString)
        # Of the stub it would be parsed in one go.
        self._list_job_logs: grpc.aio.UnaryUnaryMultiCallable[ListJobLogsRequest, bytes] = (
            channel.unary_unary(
                f"/{SERVICE}/ListJobLogs",
                request_serializer=ListJobLogsRequest.SerializeToString,
            )
        )

    async def _page(
        self, caller: Caller, request: ListJobLogsRequest, log_filter: LogFilter
    ) -> LogPage:
        """Return the page that a request asks for, which has the coordinator apply the filter."""
        metadata = call_metadata(caller, api_secret=self._settings.api_secret)
        call = ObservedCall(
            "ListJobLogs",
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=Asked(request, self._secrets(caller)),
        )
        with call as traced:
            data = await self._list_job_logs(
                request, metadata=metadata + traced, timeout=self._settings.unary_timeout
            )
            call.answered()
            return await self._turns.run(
                page_pieces(data, request, log_filter, parse=self._parse_page, reader=self._records)
            )
