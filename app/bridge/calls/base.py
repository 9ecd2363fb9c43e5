"""How a call is made, observed and checked."""

from collections.abc import AsyncGenerator, Callable
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from app.bridge.contract.answers import check_answer
from app.bridge.contract.breaches import Breach, ReportBreach, log_breach
from app.bridge.converters import JsonObject, to_json
from app.bridge.metadata import call_metadata
from app.bridge.observed_call import Observe, ObservedCall, nobody
from app.bridge.sent import Asked
from app.bridge.settings import UpstreamSettings
from app.caller import Caller, DownstreamTokens
from app.errors import BrokenContract
from app.telemetry.tracing import NoTracer, Tracer
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import (
    Job,
)

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
T = TypeVar("T")


#: Told of a job: the caller's tenant, and the job as far as it is known (revision 0: in part).
RecordJob: TypeAlias = Callable[[str, JsonObject], None]


def _unseen(tenant_id: str, job: JsonObject) -> None:
    """Look away."""


class Calls:
    """What all calls share, over a channel that somebody else owns and closes.

    A body is what its schema loads. `job_id` and its like are taken as they
    are: the coordinator knows which exist. Answers are checked by the contract:
    `report` receives what breaks it, `record_job` every job that an answer
    holds, or that it is about.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        settings: UpstreamSettings,
        observe: Observe = nobody,
        report: ReportBreach = log_breach,
        record_job: RecordJob = _unseen,
        tracer: Tracer | None = None,
    ) -> None:
        self._stub = MindCoordinatorStub(channel)
        self._settings = settings
        self._observe = observe
        self._report = report
        self._record_job = record_job
        self._tracer = tracer or NoTracer()

    async def _job(
        self,
        method: str,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[Q, Job]",
        caller: Caller,
        request: Q,
    ) -> JsonObject:
        job = await self._call(method, rpc, caller, request)
        self._record_job(caller.tenant_id, job)
        return job

    async def _call(
        self,
        method: str,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[Q, R]",
        caller: Caller,
        request: Q,
        *,
        tokens: DownstreamTokens | None = None,
        deadline: float | None = None,
    ) -> JsonObject:
        answer = await self._ask(method, rpc, caller, request, tokens=tokens, deadline=deadline)
        return to_json(answer)

    async def _ask(
        self,
        method: str,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[Q, R]",
        caller: Caller,
        request: Q,
        *,
        tokens: DownstreamTokens | None = None,
        deadline: float | None = None,
    ) -> R:
        """Return an answer that keeps the contract."""
        metadata = call_metadata(caller, api_secret=self._settings.api_secret, tokens=tokens)
        timeout = deadline or self._settings.unary_timeout
        secrets = self._secrets(caller)
        if tokens is not None:
            secrets += [tokens.scaidrive, tokens.scaiatlas]
        with ObservedCall(
            method,
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=Asked(request, secrets),
        ) as traced:
            response: R | None = await rpc(request, metadata=metadata + traced, timeout=timeout)
            if response is None:
                raise BrokenContract(Breach.UNREADABLE, "the answer is not the right message")
            check_answer(method, caller.tenant_id, request, response)
        return response

    async def _stream(
        self,
        method: str,
        rpc: "grpc.aio.UnaryStreamMultiCallable[Q, R]",
        caller: Caller,
        request: Q,
        *,
        read: Callable[[R], T],
    ) -> AsyncGenerator[T, None]:
        """Yield what `read` makes of each message; it raises `BrokenContract`.

        Closing the generator cancels the call.
        """
        metadata = call_metadata(caller, api_secret=self._settings.api_secret)
        with ObservedCall(
            method,
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=Asked(request, self._secrets(caller)),
            stream=True,
        ) as traced:
            # No deadline: it would bound the stream's whole life.
            call: grpc.aio.UnaryStreamCall[Q, R] = rpc(request, metadata=metadata + traced)
            try:
                async for message in call:
                    if message is None:
                        raise BrokenContract(Breach.UNREADABLE, "the message is not the right one")
                    yield read(message)
            finally:
                # A call that is merely left goes on upstream for ever.
                call.cancel()

    def _secrets(self, caller: Caller) -> list[str]:
        """Return the credentials that go with each call."""
        return [self._settings.api_secret, caller.subject_token]
