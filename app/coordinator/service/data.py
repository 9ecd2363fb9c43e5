"""The calls about data: validation and the cache."""

from typing import Final

from typing_extensions import override

from app.coordinator.data.preview import MOST_RECORDS
from app.coordinator.data.validation_pool import Question
from app.coordinator.errors import InvalidArgument, NotFound
from app.coordinator.jobs.messages import time_message
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, metadata_of, peer_of
from generated.mindcoordinator.v1 import data_pb2

_MAX_SOURCES: Final = 100


class DataCalls(Calls):
    """The calls about data."""

    @override
    async def ValidateData(
        self, request: data_pb2.ValidateDataRequest, context: Context
    ) -> data_pb2.ValidateDataResponse:
        peer = peer_of(context)
        access = await self._parts.admission.admit(peer, metadata_of(context))
        if not 0 < len(request.data_sources) <= _MAX_SOURCES:
            raise InvalidArgument("data_sources", f"must have 1 to {_MAX_SOURCES} sources")
        if not 0 <= request.preview <= MOST_RECORDS:
            raise InvalidArgument("preview", f"must be from 0 to {MOST_RECORDS}")
        findings = await self._parts.validation_pool.check(
            access,
            [
                Question(source.path, source.format, tuple(source.columns), request.preview)
                for source in request.data_sources
            ],
            within=context.time_remaining(),
        )
        return data_pb2.ValidateDataResponse(
            valid=not any(finding.error_message for finding in findings),
            validations=[
                data_pb2.DataValidation(
                    path=source.path,
                    accessible=finding.accessible,
                    size_bytes=finding.size_bytes,
                    record_count=finding.record_count,
                    format=finding.format,
                    error_message=finding.error_message,
                    preview=data_pb2.DataPreview(records=finding.preview)
                    if finding.preview
                    else None,
                )
                for source, finding in zip(request.data_sources, findings, strict=True)
            ],
        )

    @override
    async def GetDataCache(
        self, request: data_pb2.GetDataCacheRequest, context: Context
    ) -> data_pb2.DataCache:
        peer = peer_of(context)
        access = await self._parts.admission.admit(peer, metadata_of(context))
        if request.node_id and request.node_id not in self._scheduler.cluster.nodes:
            raise NotFound("the node does not exist")
        own = self._parts.cache.entries(access.tenant_id, node_id=request.node_id)
        return data_pb2.DataCache(
            total_cache_size_bytes=self._parts.cache.limit_bytes,
            # What others use is not this tenant's to know.
            used_cache_size_bytes=sum(entry.size_bytes for entry in own),
            datasets=[
                data_pb2.CachedDataset(
                    path=entry.url,
                    size_bytes=entry.size_bytes,
                    cached_at=time_message(entry.cached_at),
                    last_accessed=time_message(entry.last_accessed),
                    reference_count=len(entry.jobs),
                )
                for entry in own
            ],
        )
