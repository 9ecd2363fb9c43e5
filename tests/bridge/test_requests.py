from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.message import Message

from app.bridge.requests import (
    build,
    build_list_jobs,
    build_retry_job,
    build_submit_evaluation,
    build_submit_job,
    build_validate_data,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    FRAMEWORK_TYPE_CUSTOM,
    JOB_STATUS_FAILED,
    TRAINING_TYPE_LORA,
    DataConfig,
    OutputConfig,
    ResourceConfig,
    SchedulingConfig,
    SubmitJobRequest,
    TrainingConfig,
)


def test_a_submission() -> None:
    request = build_submit_job(
        {
            "name": "n",
            "labels": {"team": "a"},
            "training_config": {
                "training_type": "LORA",
                "base_model": {"model_id": "m", "model_kwargs": {"k": "v"}},
                "framework": {
                    "type": "CUSTOM",
                    "custom_script_path": "scaidrive://acme/train.py",
                    "distributed": {"world_size": 2, "backend": "gloo"},
                },
                "hyperparameters": {"lr": "0.1"},
                "priority": 0,
            },
            "data_config": {
                "sources": [{"path": "a", "columns": ["x", "y"], "sampling": 0.5}, {"path": "b"}],
                "preprocess": {"add_bos": True},
                "seed": -(2**63),
            },
            "resource_config": {"gpu_memory_bytes": 2**63 - 1},
            "output_config": None,
            "scheduling_config": {"node_selector": {"zone": "z"}},
        },
        idempotency_key="k",
    )

    assert request.name == "n"
    assert request.idempotency_key == "k"
    assert dict(request.labels) == {"team": "a"}
    training = request.training_config
    assert training.training_type == TRAINING_TYPE_LORA
    assert training.framework.type == FRAMEWORK_TYPE_CUSTOM
    assert training.framework.distributed.backend == "gloo"
    assert dict(training.base_model.model_kwargs) == {"k": "v"}
    assert [source.path for source in request.data_config.sources] == ["a", "b"]
    assert list(request.data_config.sources[0].columns) == ["x", "y"]
    assert request.data_config.sources[0].sampling == 0.5
    assert request.data_config.preprocess.add_bos
    assert request.data_config.seed == -(2**63)
    assert request.resource_config.gpu_memory_bytes == 2**63 - 1
    assert not request.HasField("output_config")
    assert dict(request.scheduling_config.node_selector) == {"zone": "z"}


def test_an_object_that_is_given_is_there_even_if_it_is_empty() -> None:
    assert build_submit_job({"output_config": {}}).HasField("output_config")


def test_a_page_of_jobs() -> None:
    request = build_list_jobs(statuses=["FAILED"], label_filter={"a": "b"})

    assert list(request.statuses) == [JOB_STATUS_FAILED]
    assert request.page_size == 20
    assert dict(request.label_filter) == {"a": "b"}


def test_a_retry() -> None:
    assert not build_retry_job("j").HasField("new_resource_config")
    request = build_retry_job("j", modify_resources=True, new_resource_config={"gpu_count": 0})
    assert request.HasField("new_resource_config")
    assert request.modify_resources


def test_an_evaluation_and_a_validation() -> None:
    evaluation = build_submit_evaluation({"benchmarks": [{"name": "b", "num_samples": 3}]})
    assert [(each.name, each.num_samples) for each in evaluation.benchmarks] == [("b", 3)]
    validation = build_validate_data({"data_sources": [{"path": "p", "format": "jsonl"}]})
    assert [(each.path, each.format) for each in validation.data_sources] == [("p", "jsonl")]


@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]
)
def test_times_keep_their_microseconds_in_any_zone(zone: timezone) -> None:
    moment = datetime(2031, 3, 30, 2, 30, 0, 123457, tzinfo=zone)

    request = build(SchedulingConfig, {"not_before": moment})

    assert request.not_before.nanos == 123_457_000
    assert request.not_before.ToDatetime(UTC) == moment


@pytest.mark.parametrize(
    ("message_type", "body", "error"),
    [
        (ResourceConfig, {"gpu_count": 3.7}, TypeError),
        (ResourceConfig, {"gpu_count": 3.0}, TypeError),
        (ResourceConfig, {"gpu_count": "3"}, TypeError),
        (ResourceConfig, {"gpu_count": True}, TypeError),
        (ResourceConfig, {"gpu_count": 2**31}, ValueError),
        (ResourceConfig, {"memory_bytes": 2**63}, ValueError),
        (ResourceConfig, {"gpus": 1}, KeyError),
        (ResourceConfig, {"gpu_type": 1}, TypeError),
        (TrainingConfig, {"training_type": "lora"}, ValueError),
        (TrainingConfig, {"training_type": "TRAINING_TYPE_LORA"}, ValueError),
        (TrainingConfig, {"hyperparameters": {"lr": 0.1}}, TypeError),
        (DataConfig, {"sources": [{"nope": 1}]}, KeyError),
        (DataConfig, {"validation_split": "0.5"}, TypeError),
        (OutputConfig, {"register_model": "yes"}, TypeError),
        (SchedulingConfig, {"not_before": datetime(2031, 1, 1)}, ValueError),
        (SubmitJobRequest, {"name": "\ud800"}, UnicodeEncodeError),
    ],
)
def test_nothing_near_it(
    message_type: type[Message], body: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        build(message_type, body)
