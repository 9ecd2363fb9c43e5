"""Calls about data sets."""

from app.bridge.calls.base import Calls
from app.bridge.converters import JsonObject
from app.bridge.requests import (
    Body,
    build_validate_data,
)
from app.caller import Caller, DownstreamTokens
from generated.mindcoordinator.v1.data_pb2 import GetDataCacheRequest


class DataCalls(Calls):
    """Checks data sources and reads the cache."""

    async def validate_data(
        self, caller: Caller, body: Body, *, tokens: DownstreamTokens | None = None
    ) -> JsonObject:
        """Reach and parse data sources without queueing anything."""
        return await self._call(
            "ValidateData",
            self._stub.ValidateData,
            caller,
            build_validate_data(body),
            tokens=tokens,
            deadline=self._settings.submit_timeout,
        )

    async def get_data_cache(
        self, caller: Caller, *, node_id: str = "", tokens: DownstreamTokens | None = None
    ) -> JsonObject:
        """Fetch what the data-set cache holds, on all nodes unless one is named."""
        return await self._call(
            "GetDataCache",
            self._stub.GetDataCache,
            caller,
            GetDataCacheRequest(node_id=node_id),
            tokens=tokens,
        )
