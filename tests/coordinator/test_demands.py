import pytest

from app.coordinator.errors import InvalidArgument
from app.coordinator.submission.resources import bound_run_time, check_times, resource_request_of
from generated.mindcoordinator.v1.jobs_pb2 import ResourceConfig, SchedulingConfig

NOW = 1_800_000_000_000_000
MOST = 2**63 - 1


def test_what_is_not_asked_for_is_not_counted() -> None:
    resource_request = resource_request_of(ResourceConfig(), SchedulingConfig())
    assert (
        resource_request.nodes,
        resource_request.gpus,
        resource_request.cpus,
        resource_request.memory,
    ) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "resources",
    [
        ResourceConfig(memory_bytes=MOST),
        ResourceConfig(memory_bytes=-1),
        ResourceConfig(gpu_memory_bytes=MOST),
        ResourceConfig(cpu_count=2**31 - 1),
        ResourceConfig(gpu_count=2**31 - 1),
        ResourceConfig(node_count=2**31 - 1),
        ResourceConfig(node_count=-1),
    ],
)
def test_amounts_that_no_cluster_has_are_refused_by_name(resources: ResourceConfig) -> None:
    ((field, _),) = resources.ListFields()
    with pytest.raises(InvalidArgument, match=rf"^resource_config.{field.name}: .* from 0 to"):
        resource_request_of(resources, SchedulingConfig())


@pytest.mark.parametrize("seconds", [-1, MOST, 10 * 365 * 24 * 3600 + 1])
def test_run_times_that_cannot_be_counted_with_are_refused(seconds: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^scheduling_config.max_runtime_seconds: "):
        check_times(SchedulingConfig(max_runtime_seconds=seconds), now=NOW)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(-1, 0), (MOST, 0), (10**10, 0), (0, -1), (0, 10**9)]
)
def test_starts_that_cannot_be_waited_for_are_refused(seconds: int, nanos: int) -> None:
    scheduling = SchedulingConfig()
    scheduling.not_before.seconds = seconds
    scheduling.not_before.nanos = nanos
    with pytest.raises(InvalidArgument, match=r"^scheduling_config.not_before: "):
        check_times(scheduling, now=NOW)


def test_times_that_are_taken() -> None:
    check_times(SchedulingConfig(), now=NOW)
    scheduling = SchedulingConfig(max_runtime_seconds=10 * 365 * 24 * 3600)
    scheduling.not_before.seconds = NOW // 1_000_000 + 86400
    check_times(scheduling, now=NOW)


@pytest.mark.parametrize(("before", "after"), [(MOST, 10 * 365 * 24 * 3600), (-5, 0), (60, 60)])
def test_what_was_accepted_before_there_were_bounds_can_be_retried(before: int, after: int) -> None:
    scheduling = SchedulingConfig(max_runtime_seconds=before)
    bound_run_time(scheduling)
    assert scheduling.max_runtime_seconds == after
