"""A gateway as it is usually written: FastAPI, pydantic, grpc.aio and MessageToDict.

PYTHONPATH=. python scripts/bench/peers/usual.py PORT COORDINATOR TOKEN

It has what every gateway needs: a bearer token that is checked, validated parameters and
bodies, a typed call with the tenant in its metadata. It has no rate limit, no audit, no cache,
no request id and no log line. In an environment of its own, of requirements/bench.txt.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import compare_digest
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field

from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, ListJobsRequest, SubmitJobRequest
from scripts.bench.fanout_rig.workloads import SECRET, TENANT

if TYPE_CHECKING:
    from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorAsyncStub

PREFIX = "/v1/modules/scaimind"


class Strict(BaseModel):
    """A model that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")


class Source(Strict):
    """A data set."""

    path: str = Field(min_length=1, max_length=4096)
    format: str = ""
    columns: list[str] = []


class Data(Strict):
    """Training data."""

    sources: list[Source] = Field(max_length=1000)


class Model(Strict):
    """The model that is trained."""

    model_id: str = Field(min_length=1, max_length=4096)


class Framework(Strict):
    """What trains it."""

    type: str
    custom_script_path: str = Field("", max_length=4096)


class Training(Strict):
    """How it is trained."""

    training_type: str
    base_model: Model
    framework: Framework
    hyperparameters: dict[str, str] = {}


class Resources(Strict):
    """What it needs."""

    gpu_count: int = Field(0, ge=0)
    cpu_count: int = Field(0, ge=0)


class Submission(Strict):
    """The body of a submission."""

    name: str = Field(min_length=1, max_length=256)
    training_config: Training
    data_config: Data
    resource_config: Resources
    labels: dict[str, str] = {}


def application(address: str, token: str) -> FastAPI:
    """Make the application."""
    metadata = (("x-api-secret", SECRET), ("x-tenant-id", TENANT))
    stubs: list[MindCoordinatorAsyncStub] = []

    @asynccontextmanager
    async def connected(_: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(address) as channel:
            stubs.append(MindCoordinatorStub(channel))
            yield

    app = FastAPI(lifespan=connected)
    bearer = HTTPBearer()

    async def checked(
        given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    ) -> str:
        if not compare_digest(given.credentials, token):
            raise HTTPException(401, "The token is not valid.")
        return TENANT

    @app.get(f"{PREFIX}/jobs/{{job_id}}")
    async def get_job(job_id: str, _: Annotated[str, Depends(checked)]) -> dict[str, Any]:
        answer = await stubs[0].GetJob(GetJobRequest(job_id=job_id), metadata=metadata, timeout=10)
        return {"data": as_dict(answer)}

    @app.get(f"{PREFIX}/jobs")
    async def list_jobs(
        _: Annotated[str, Depends(checked)],
        page_size: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        answer = await stubs[0].ListJobs(
            ListJobsRequest(page_size=page_size), metadata=metadata, timeout=10
        )
        return {"data": as_dict(answer)}

    @app.post(f"{PREFIX}/jobs", status_code=201)
    async def submit_job(body: Submission, _: Annotated[str, Depends(checked)]) -> dict[str, Any]:
        given = body.model_dump()
        training = given["training_config"]
        training["training_type"] = f"TRAINING_TYPE_{training['training_type']}"
        training["framework"]["type"] = f"FRAMEWORK_TYPE_{training['framework']['type']}"
        request = ParseDict(given, SubmitJobRequest())
        answer = await stubs[0].SubmitJob(request, metadata=metadata, timeout=10)
        return {"data": as_dict(answer)}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app


def as_dict(message: Message) -> dict[str, Any]:
    """Convert a message as protobuf does, with the names of its fields."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def main() -> None:
    """Serve until the process is stopped."""
    port, address, token = sys.argv[1:]
    uvicorn.run(
        application(address, token),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
