"""A coordinator that answers GetJob, ListJobs and SubmitJob with what was encoded before.

A process of its own, on the load's core: `python -m scripts.bench.peers.coordinator` says
`{"port": ...}` when it serves, and answers `calls` on stdin with the calls so far, by method.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from typing import TypeVar

import grpc
import orjson
import uvloop

from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_QUEUED,
    GetJobRequest,
    Job,
    ListJobsRequest,
    ListJobsResponse,
    SubmitJobRequest,
    SubmitJobResponse,
)
from scripts.bench.converters import job
from scripts.bench.fanout_rig.workloads import JOB, TENANT

SERVICE = "mindcoordinator.v1.MindCoordinator"
LONGEST_PAGE = 100
#: The page token of a page whose jobs are others each time, and how many such pages there are: more
#: jobs than the gateway remembers.
CHANGED, CHANGED_PAGES = "changed", 64

Q = TypeVar("Q")


def of_tenant(job_id: str) -> Job:
    """Make a job as it really is: with all its configurations and three checkpoints."""
    made = job()
    made.job_id, made.tenant_id = job_id, TENANT
    return made


class Coordinator:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._job = of_tenant(JOB).SerializeToString()
        jobs = [of_tenant(f"{JOB}-{number}") for number in range(LONGEST_PAGE)]
        self._pages = {
            size: ListJobsResponse(jobs=jobs[:size], total_count=size).SerializeToString()
            for size in (20, LONGEST_PAGE)
        }
        self._changed = cycle([self._page_at(step) for step in range(CHANGED_PAGES)])
        self._submitted = SubmitJobResponse(
            job_id=JOB, status=JOB_STATUS_QUEUED, message="Waiting."
        ).SerializeToString()

    def handler(self) -> grpc.GenericRpcHandler:
        """The three methods; all others are UNIMPLEMENTED."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetJob": self._method("GetJob", self._get, GetJobRequest.FromString),
                "ListJobs": self._method("ListJobs", self._list, ListJobsRequest.FromString),
                "SubmitJob": self._method("SubmitJob", self._submit, SubmitJobRequest.FromString),
            },
        )

    def _method(
        self, name: str, answer: Callable[[Q], bytes], parse: Callable[[bytes], Q]
    ) -> "grpc.RpcMethodHandler[Q, bytes]":
        async def count(request: Q, _: grpc.aio.ServicerContext[Q, bytes]) -> bytes:
            self.calls[name] += 1
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(count, request_deserializer=parse)

    def _get(self, _: GetJobRequest) -> bytes:
        return self._job

    @staticmethod
    def _page_at(step: int) -> bytes:
        """A page of jobs that all train, at a step of theirs."""
        page = ListJobsResponse(total_count=LONGEST_PAGE)
        for number in range(LONGEST_PAGE):
            made = of_tenant(f"{JOB}-{number}")
            made.training_config.max_retries = number
            made.revision, made.progress.step = step + 1, step
            page.jobs.append(made)
        return page.SerializeToString()

    def _list(self, request: ListJobsRequest) -> bytes:
        if request.page_token == CHANGED:
            return next(self._changed)
        return self._pages[request.page_size or 20]

    def _submit(self, _: SubmitJobRequest) -> bytes:
        return self._submitted


async def serve() -> None:
    """Serve until stdin ends."""
    coordinator = Coordinator()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((coordinator.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(orjson.dumps({"port": port}).decode(), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(orjson.dumps(dict(coordinator.calls)).decode(), flush=True)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve())
