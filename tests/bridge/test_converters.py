import re
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.bridge.converters import converter_of, enum_prefix, log_entry, metrics_snapshot, to_json
from app.credentials import shown_value
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, watch_pb2
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_TRAINING,
    Job,
    JobProgress,
    SubmitJobRequest,
    TrainingConfig,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, MetricsSnapshot
from tests.bridge.every_kind import every_kind
from tests.bridge.messages import messages
from tests.scripted_coordinator import SERVICE, type_of

EVERY_KIND = every_kind()
RESPONSES = [type_of(method.output_type) for method in SERVICE.methods]

_INT64 = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def reference(message: Message) -> dict[str, Any]:
    """protobuf's own JSON mapping, with the documented differences applied to it."""
    printed = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return ours(printed, message.DESCRIPTOR)


def ours(printed: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    adapted: dict[str, Any] = {}
    for name, value in printed.items():
        field = descriptor.fields_by_name[name]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            adapted[name] = {key: one(each, inner) for key, each in value.items()}
            if field.full_name.endswith("TrainingConfig.environment"):
                adapted[name] = {key: shown_value(key, each) for key, each in value.items()}
        elif field.is_repeated:
            adapted[name] = [one(each, field) for each in value]
        else:
            adapted[name] = one(value, field)
    unset = {
        field.name: None
        for field in descriptor.fields
        if field.message_type is not None
        and field.message_type.full_name == "google.protobuf.Timestamp"
        and not field.is_repeated
        and field.containing_oneof is None
    }
    return {**unset, **adapted}


def one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        is_time = field.message_type.full_name == "google.protobuf.Timestamp"
        return value if is_time else ours(value, field.message_type)
    if field.enum_type is not None:
        return value.removeprefix(enum_prefix(field.enum_type)) if isinstance(value, str) else value
    if field.cpp_type in _INT64:
        return int(value)
    if value in ("NaN", "Infinity", "-Infinity") and isinstance(value, str):
        is_number = field.cpp_type in (
            FieldDescriptor.CPPTYPE_DOUBLE,
            FieldDescriptor.CPPTYPE_FLOAT,
        )
        return None if is_number else value
    return value


class TestAgainstProtobuf:
    @settings(settings.get_profile("often"), suppress_health_check=[HealthCheck.too_slow])
    @given(messages(EVERY_KIND))
    def test_every_kind_of_field(self, message: Message) -> None:
        assert to_json(message) == reference(message)

    @settings(settings.get_profile("often"), suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(RESPONSES).flatmap(messages))
    def test_every_response(self, message: Message) -> None:
        converted = to_json(message)
        assert converted == reference(message)
        assert orjson.dumps(converted)

    @pytest.mark.parametrize(
        "message_type", [*RESPONSES, EVERY_KIND], ids=lambda each: each.DESCRIPTOR.name
    )
    def test_an_empty_message(self, message_type: type[Message]) -> None:
        assert to_json(message_type()) == reference(message_type())


class TestAsDocumented:
    def test_a_job(self) -> None:
        job = Job(
            job_id="j",
            status=JOB_STATUS_TRAINING,
            revision=2**63 - 1,
            labels={"b": "2", "a": "1"},
            created_at=Timestamp(seconds=1_700_000_000, nanos=120_000_000),
            progress=JobProgress(step=3, loss=float("nan")),
            node_ids=["n1", "n2"],
        )

        converted = to_json(job)

        assert converted["status"] == "TRAINING"
        assert converted["revision"] == 2**63 - 1
        assert converted["labels"] == {"a": "1", "b": "2"}
        assert converted["created_at"] == "2023-11-14T22:13:20.120Z"
        assert converted["progress"] == {"step": 3, "total_steps": 0, "epoch": 0.0, "loss": None}
        assert converted["node_ids"] == ["n1", "n2"]
        assert converted["error_message"] == ""
        assert converted["checkpoints"] == []
        for unset in ("training_config", "exit_code"):
            assert unset not in converted
        for unset in ("started_at", "ended_at", "updated_at"):
            assert converted[unset] is None

    def test_credentials_among_a_jobs_variables_are_masked(self) -> None:
        training = TrainingConfig(
            environment={"HF_TOKEN": "hf_x", "URL": "db://u:p@h", "EPOCHS": "3"},
            hyperparameters={"api_key": "not a variable"},
        )
        shown = {"HF_TOKEN": "***", "URL": "***", "EPOCHS": "3"}
        for message in (Job(training_config=training), SubmitJobRequest(training_config=training)):
            converted = to_json(message)["training_config"]
            assert converted["environment"] == shown
            assert converted["hyperparameters"] == {"api_key": "not a variable"}

    def test_fields_come_in_the_order_of_the_contract(self) -> None:
        entry = log_entry(LogEntry(timestamp=Timestamp(), fields={"a": "b"}))

        assert list(entry) == [field.name for field in LogEntry.DESCRIPTOR.fields]

    def test_unspecified_has_a_name_and_an_unknown_number_stays_one(self) -> None:
        assert to_json(Job())["status"] == "UNSPECIFIED"
        assert to_json(Job(status=99))["status"] == 99  # type: ignore[arg-type] # of a newer contract

    def test_an_optional_zero_is_there(self) -> None:
        assert to_json(Job(exit_code=0))["exit_code"] == 0
        assert metrics_snapshot(MetricsSnapshot(loss=0.0))["loss"] == 0.0

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_not_finite_is_null(self, value: float) -> None:
        snapshot = MetricsSnapshot(loss=value, extra={"x": value})

        assert metrics_snapshot(snapshot)["loss"] is None
        assert metrics_snapshot(snapshot)["extra"] == {"x": None}

    @pytest.mark.parametrize(
        ("seconds", "nanos"),
        [(-62135596801, 0), (253402300800, 0), (2**62, 0), (-(2**62), 0), (0, -1), (0, 10**9)],
    )
    def test_a_time_that_is_none_is_null(self, seconds: int, nanos: int) -> None:
        entry = LogEntry(timestamp=Timestamp(seconds=seconds, nanos=nanos))

        assert log_entry(entry)["timestamp"] is None

    @pytest.mark.parametrize("nanos", [0, 1, 1_000, 1_000_000, 120_000_000, 999_999_999])
    @pytest.mark.parametrize("seconds", [-62135596800, -1, 0, 253402300799])
    def test_times_are_as_protobuf_prints_them(self, seconds: int, nanos: int) -> None:
        timestamp = Timestamp(seconds=seconds, nanos=nanos)

        assert log_entry(LogEntry(timestamp=timestamp))["timestamp"] == timestamp.ToJsonString()

    def test_the_result_shares_nothing_with_the_message(self) -> None:
        job = Job(labels={"a": "1"}, node_ids=["n1"])
        converted = to_json(job)

        job.labels["a"] = "2"
        job.node_ids.append("n2")

        assert converted["labels"] == {"a": "1"}
        assert converted["node_ids"] == ["n1"]

    def test_a_type_is_compiled_once(self) -> None:
        assert converter_of(Job) is converter_of(Job)

    def test_a_well_known_type_without_a_form_here_is_refused(self) -> None:
        with pytest.raises(TypeError, match="a JSON form of its own"):
            converter_of(descriptor_pb2.FileOptions)


def test_every_enum_of_the_contract_has_the_prefix_that_is_taken_off() -> None:
    enums = [
        enum
        for file in (jobs_pb2, watch_pb2, cluster_pb2)
        for enum in file.DESCRIPTOR.enum_types_by_name.values()
    ]

    assert enums
    for enum in enums:
        for value in enum.values:
            assert value.name.startswith(enum_prefix(enum))
            assert re.fullmatch("[A-Z_]+", value.name.removeprefix(enum_prefix(enum)))


def test_now_is_now() -> None:
    now = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC)
    timestamp = Timestamp()
    timestamp.FromDatetime(now)

    text = log_entry(LogEntry(timestamp=timestamp))["timestamp"]

    assert datetime.fromisoformat(text) == now


def test_reasons_have_no_credentials_and_are_bounded() -> None:
    job = Job(error_message="cannot reach postgresql://ann:hunter2-Zebra@db/x: KeyError: 'a'")
    assert to_json(job)["error_message"] == (
        "cannot reach postgresql://ann:***@db/x: KeyError: 'a'"
    )
    assert to_json(Job())["error_message"] == ""
    long = to_json(Job(error_message="x" * 100_000))["error_message"]
    assert long == "x" * (64 * 1024 - 1) + "…"
