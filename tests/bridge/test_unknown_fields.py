"""Fields of a newer coordinator: counted, logged once, and dropped."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest
import structlog
from google.protobuf.message import Message

from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.contract.unknown_fields import MOST_FIELDS, UnknownFields
from app.bridge.settings import UpstreamSettings
from app.caller import Caller
from app.errors import BrokenContract
from generated.mindcoordinator.v1.cluster_pb2 import ListNodesResponse, Node
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.evaluations_pb2 import BenchmarkResult, Evaluation
from generated.mindcoordinator.v1.jobs_pb2 import Job, JobProgress
from generated.mindcoordinator.v1.watch_pb2 import (
    LogEntry,
    WatchJobRequest,
    WatchJobResponse,
    WatchStart,
)
from tests.scripted_coordinator import Raw, ScriptedCoordinator

M = TypeVar("M", bound=Message)


def newer(message: M, *numbers: int) -> M:
    """The message with these fields as texts, whatever its type."""
    for number in numbers:
        tag = number << 3 | 2
        varint = bytearray()
        while tag > 127:
            varint.append(tag & 127 | 128)
            tag >>= 7
        message.MergeFromString(bytes([*varint, tag]) + b"\x03new")
    return message


class Counted(Counter[tuple[str, str]]):
    def __call__(self, message: str, number: str, count: int) -> None:
        self[message, number] += count


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def unknown_fields(counted: Counted) -> UnknownFields:
    return UnknownFields(count=counted)


@pytest.fixture
async def client(
    settings: UpstreamSettings, unknown_fields: UnknownFields
) -> AsyncIterator[CoordinatorClient]:
    async with open_channel(settings, unknown_fields=unknown_fields) as channel:
        yield CoordinatorClient(channel=channel, settings=settings)


def warnings(events: list[Any]) -> list[tuple[str, str]]:
    return [
        (event["message"], event["number"])
        for event in events
        if event["event"] == "scaimind_coordinator_unknown_field"
    ]


async def test_those_of_an_answer_are_counted_and_logged_once(
    coordinator: ScriptedCoordinator, client: CoordinatorClient, caller: Caller, counted: Counted
) -> None:
    job = newer(Job(job_id="j", name="n", progress=newer(JobProgress(step=3), 77)), 900, 901)
    coordinator.answer("GetJob", job)
    with structlog.testing.capture_logs() as events:
        first = await client.get_job(caller, "j")
        second = await client.get_job(caller, "j")
    assert first == second
    assert (first["name"], first["progress"]["step"]) == ("n", 3)
    assert "new" not in str(first)
    assert counted == {("Job", "900"): 2, ("Job", "901"): 2, ("JobProgress", "77"): 2}
    assert sorted(warnings(events)) == [("Job", "900"), ("Job", "901"), ("JobProgress", "77")]


async def test_those_of_entries_of_a_list_are_counted_each(
    coordinator: ScriptedCoordinator, client: CoordinatorClient, caller: Caller, counted: Counted
) -> None:
    nodes = [newer(Node(node_id="a"), 99), Node(node_id="b"), newer(Node(node_id="c"), 99)]
    coordinator.answer("ListNodes", ListNodesResponse(nodes=nodes))
    answer = await client.list_nodes(caller)
    assert [node["node_id"] for node in answer["nodes"]] == ["a", "b", "c"]
    assert counted == {("Node", "99"): 2}


async def test_those_of_a_stream_are_counted(
    coordinator: ScriptedCoordinator,
    settings: UpstreamSettings,
    unknown_fields: UnknownFields,
    counted: Counted,
) -> None:
    entries = [newer(LogEntry(offset=at, message="m"), 111) for at in range(1, 11)]
    start = WatchJobResponse(start=WatchStart(epoch="e"))
    coordinator.answer("WatchJob", [start, WatchJobResponse(logs=entries)])
    async with open_channel(settings, unknown_fields=unknown_fields) as channel:
        call = MindCoordinatorStub(channel).WatchJob(WatchJobRequest(job_id="j"))
        messages = [message async for message in call]
    assert [entry.offset for entry in messages[1].logs] == list(range(1, 11))
    assert b"new" not in messages[1].SerializeToString()
    assert counted == {("LogEntry", "111"): 10}


def test_a_message_of_this_contract_is_what_it_was(
    unknown_fields: UnknownFields, counted: Counted
) -> None:
    message = Evaluation(
        evaluation_id="e", results=[BenchmarkResult(name="b", scores={"": 0.0, "f1": 0.5})]
    )
    read = unknown_fields.reader_of(Evaluation.FromString)
    assert read(message.SerializeToString()) == message
    assert counted == {}


def test_another_encoding_of_the_same_is_not_taken_for_a_newer_field(
    unknown_fields: UnknownFields, counted: Counted
) -> None:
    # The revision as 0, which need not be written, and 1 in more bytes than it takes.
    data = b"\x90\x01\x00" + b"\xa0\x01\x81\x80\x00"
    with structlog.testing.capture_logs() as events:
        job = unknown_fields.reader_of(Job.FromString)(data)
    assert (job.revision, job.run_count) == (0, 1)
    assert (counted, warnings(events)) == ({}, [])


def test_numbers_are_told_apart_up_to_a_bound(
    unknown_fields: UnknownFields, counted: Counted
) -> None:
    read = unknown_fields.reader_of(Job.FromString)
    with structlog.testing.capture_logs() as events:
        for _ in range(2):
            for first in range(1000, 1500, 100):
                numbers = range(first, first + 100)
                assert read(newer(Job(), *numbers).SerializeToString()) == Job()
    assert len(counted) == MOST_FIELDS + 1
    assert counted["Job", "other"] == 2 * (500 - MOST_FIELDS)
    assert len(warnings(events)) == MOST_FIELDS + 1


async def test_bytes_that_are_no_message_are_what_they_were(
    coordinator: ScriptedCoordinator, client: CoordinatorClient, caller: Caller, counted: Counted
) -> None:
    coordinator.answer("GetJob", Raw(b"\xff\xff\xff"))
    with pytest.raises(BrokenContract):
        await client.get_job(caller, "j")
    assert counted == {}


async def test_closing_the_channel_closes_the_one_within(
    settings: UpstreamSettings, unknown_fields: UnknownFields, caller: Caller
) -> None:
    async with open_channel(settings, unknown_fields=unknown_fields) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        await client.get_job(caller, "j")
    with pytest.raises(Exception, match="SHUTTING_DOWN"):
        await client.get_job(caller, "j")
