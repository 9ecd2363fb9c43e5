"""A MindCoordinator over a real socket that answers as a test tells it to.

async with ScriptedCoordinator() as coordinator:
    coordinator.answer("GetJob", Job(job_id="j1"))
    ... call it at coordinator.address ...
    [request] = coordinator.requests("GetJob")
    assert request.metadata["x-tenant-id"] == "acme"
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from generated.mindcoordinator.v1 import coordinator_pb2
from generated.mindcoordinator.v1.data_pb2 import DataValidation
from tests.ports import free_ports

SERVICE = coordinator_pb2.DESCRIPTOR.services_by_name["MindCoordinator"]

type_of = GetMessageClass


@dataclass(frozen=True, slots=True)
class Failure:
    """Ends the call with this status."""

    code: grpc.StatusCode
    detail: str = ""
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it arrived."""

    message: Any
    #: Of several values under one key, the last.
    metadata: dict[str, str | bytes]
    #: Seconds that were left of the deadline; None where there was none.
    time_remaining: float | None
    #: The connection that it came by.
    peer: str


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that a unary call is answered with, whatever they are."""

    data: bytes


Context = Any
#: What a call is answered with: a message, a status, or an async function of
#: request and context that returns the message. A streaming call takes a
#: sequence of messages, of which the last may be a `Failure`, or an async
#: generator function.
Answer = (
    Message
    | Failure
    | Raw
    | Sequence[Message | Failure]
    | Callable[[Any, Context], Awaitable[Message]]
    | Callable[[Any, Context], AsyncIterator[Message]]
)


class ScriptedCoordinator:
    """A grpc.aio server on a port of 127.0.0.1.

    A method that was told nothing answers with next to nothing: what the
    contract demands. Requests are recorded in the order in which they arrive,
    retries included.
    """

    def __init__(
        self,
        *,
        options: Sequence[tuple[str, int]] = (),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self.port = 0
        self._options = [("grpc.so_reuseport", 0), *options]
        self._answers: dict[str, list[Answer]] = {}
        self._recorded: dict[str, list[Recorded]] = {name: [] for name in SERVICE.methods_by_name}
        self._arrived = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens; stays the same over `stop` and `start`."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens; on the port of before, if there was one."""
        if not self.port:
            (self.port,) = free_ports(1)
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SERVICE.full_name,
                    {name: self._handler(m) for name, m in SERVICE.methods_by_name.items()},
                )
            ]
        )
        if self._credentials is None:
            self.port = server.add_insecure_port(self.address)
        else:
            self.port = server.add_secure_port(self.address, self._credentials)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Breaks off every call and closes the port."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def answer(self, method: str, *answers: Answer) -> None:
        """From now on, the calls of `method` get these answers in turn; the last one stays."""
        descriptor = SERVICE.methods_by_name[method]
        expected = type_of(descriptor.output_type)
        for answer in answers:
            messages = answer if isinstance(answer, Sequence) else [answer]
            for message in messages:
                if isinstance(message, Message) and not isinstance(message, expected):
                    raise TypeError(
                        f"{method} answers with {expected.__name__}, not {type(message).__name__}"
                    )
        if not answers:
            raise ValueError(f"no answer for {method}")
        self._answers[method] = list(answers)

    def least(self, method: str) -> Answer:
        """Make an answer of `method` that has no more in it than the contract demands."""
        descriptor = SERVICE.methods_by_name[method]

        async def answer(request: Any, _: Context) -> Message:
            return least_answer(descriptor, request)

        return answer

    def requests(self, method: str) -> list[Recorded]:
        """The requests of `method` so far."""
        return list(self._recorded[method])

    async def received(self, method: str, count: int = 1) -> list[Recorded]:
        """Waits until `method` was requested `count` times in all."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self._recorded[method]) >= count)
        return self.requests(method)

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        deserialize = type_of(method.input_type).FromString

        async def unary(request: Message, context: Context) -> Message | Raw:
            answer = await self._next_answer(method, request, context)
            if isinstance(answer, Message | Raw):
                return answer
            if isinstance(answer, Failure):
                await fail(context, answer)
            if isinstance(answer, Sequence):
                raise TypeError(f"{method.name} takes one answer, not a sequence")
            return await cast(Callable[[Any, Context], Awaitable[Message]], answer)(
                request, context
            )

        async def stream(request: Message, context: Context) -> AsyncIterator[Message]:
            answer = await self._next_answer(method, request, context)
            if isinstance(answer, Raw):
                raise TypeError(f"{method.name} takes messages, not bytes")
            if isinstance(answer, Message | Failure | Sequence):
                for message in answer if isinstance(answer, Sequence) else [answer]:
                    if isinstance(message, Failure):
                        await fail(context, message)
                    else:
                        yield message
                return
            async for message in cast(Callable[[Any, Context], AsyncIterator[Message]], answer)(
                request, context
            ):
                yield message

        def serialize(message: Message | Raw) -> bytes:
            return message.data if isinstance(message, Raw) else message.SerializeToString()

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, deserialize, serialize)
        return grpc.unary_unary_rpc_method_handler(unary, deserialize, serialize)

    async def _next_answer(
        self, method: MethodDescriptor, request: Message, context: Context
    ) -> Answer:
        remaining = context.time_remaining()
        recorded = Recorded(
            message=request,
            metadata=dict(context.invocation_metadata()),
            time_remaining=remaining,
            peer=context.peer(),
        )
        async with self._arrived:
            self._recorded[method.name].append(recorded)
            self._arrived.notify_all()
        answers = self._answers.get(method.name)
        if answers is None:
            return least_answer(method, request)
        return answers.pop(0) if len(answers) > 1 else answers[0]


def least_answer(method: MethodDescriptor, request: Any) -> Message:
    """Make the answer to a request that has no more in it than the contract demands."""
    answer: Any = type_of(method.output_type)()
    for name in ("job_id", "node_id", "evaluation_id"):
        if hasattr(answer, name) and hasattr(request, name):
            setattr(answer, name, getattr(request, name))
    match method.name:
        case "SubmitJob":
            if request.validate_only:
                answer.check.SetInParent()
            else:
                answer.job_id = "job-new"
        case "RetryJob":
            answer.job_id, answer.parent_job_id = f"{request.job_id}-again", request.job_id
        case "SubmitEvaluation":
            answer.evaluation_id = "evaluation-new"
        case "GetLogMarks" | "ListJobLogs":
            answer.epoch = "e1"
        case "ValidateData":
            answer.validations.extend(DataValidation() for _ in request.data_sources)
    return cast(Message, answer)


async def fail(context: Context, failure: Failure) -> None:
    """Ends the call that `context` belongs to; raises."""
    await context.abort(failure.code, failure.detail, failure.trailing_metadata)
