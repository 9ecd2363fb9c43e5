"""One call of every method of the client, and the request that it must make of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.client import CoordinatorClient
from app.caller import Caller
from app.log_filter import LogFilter
from generated.mindcoordinator.v1 import (
    cluster_pb2,
    data_pb2,
    evaluations_pb2,
    jobs_pb2,
    logs_pb2,
    queue_pb2,
    watch_pb2,
)


@dataclass(frozen=True)
class Call:
    method: str
    make: Callable[[CoordinatorClient, Caller], Awaitable[Any]]
    request: Message


RESOURCES = {"gpu_count": 4, "gpu_type": "A100-80GB", "node_count": 2}

CALLS = [
    Call(
        "SubmitJob",
        lambda client, caller: client.submit_job(
            caller, {"name": "n", "resource_config": RESOURCES}, idempotency_key="k"
        ),
        jobs_pb2.SubmitJobRequest(
            name="n",
            resource_config=jobs_pb2.ResourceConfig(
                gpu_count=4, gpu_type="A100-80GB", node_count=2
            ),
            idempotency_key="k",
        ),
    ),
    Call(
        "GetJob",
        lambda client, caller: client.get_job(caller, "j"),
        jobs_pb2.GetJobRequest(job_id="j"),
    ),
    Call(
        "ListJobs",
        lambda client, caller: client.list_jobs(
            caller,
            statuses=["TRAINING", "QUEUED"],
            page_size=7,
            page_token="t",
            order_by="name desc",
            label_filter={"type": "evaluation"},
        ),
        jobs_pb2.ListJobsRequest(
            statuses=[jobs_pb2.JOB_STATUS_TRAINING, jobs_pb2.JOB_STATUS_QUEUED],
            page_size=7,
            page_token="t",
            order_by="name desc",
            label_filter={"type": "evaluation"},
        ),
    ),
    Call(
        "CancelJob",
        lambda client, caller: client.cancel_job(caller, "j", reason="r"),
        jobs_pb2.CancelJobRequest(job_id="j", reason="r"),
    ),
    Call(
        "PauseJob",
        lambda client, caller: client.pause_job(caller, "j"),
        jobs_pb2.PauseJobRequest(job_id="j", save_checkpoint=True),
    ),
    Call(
        "ResumeJob",
        lambda client, caller: client.resume_job(caller, "j", checkpoint_id="c"),
        jobs_pb2.ResumeJobRequest(job_id="j", checkpoint_id="c"),
    ),
    Call(
        "RetryJob",
        lambda client, caller: client.retry_job(
            caller,
            "j",
            checkpoint_id="c",
            modify_resources=True,
            new_resource_config={"gpu_count": 1},
        ),
        jobs_pb2.RetryJobRequest(
            job_id="j",
            checkpoint_id="c",
            modify_resources=True,
            new_resource_config=jobs_pb2.ResourceConfig(gpu_count=1),
        ),
    ),
    Call(
        "UpdateJob",
        lambda client, caller: client.update_job(
            caller, "j", {"name": "n", "labels": {"kept": "v", "gone": None}}, revision=3
        ),
        jobs_pb2.UpdateJobRequest(
            job_id="j",
            name="n",
            labels={"kept": "v"},
            update_mask=FieldMask(paths=["name", "labels.kept", "labels.gone"]),
            revision=3,
        ),
    ),
    Call(
        "DeleteJob",
        lambda client, caller: client.delete_job(caller, "j"),
        jobs_pb2.DeleteJobRequest(job_id="j"),
    ),
    Call(
        "ListCheckpoints",
        lambda client, caller: client.list_checkpoints(caller, "j", page_size=7, page_token="t"),
        jobs_pb2.ListCheckpointsRequest(job_id="j", page_size=7, page_token="t"),
    ),
    Call(
        "GetJobMetrics",
        lambda client, caller: client.get_job_metrics(caller, "j", max_points=9),
        watch_pb2.GetJobMetricsRequest(job_id="j", max_points=9),
    ),
    Call(
        "GetLogMarks",
        lambda client, caller: client.get_log_marks(caller, "j", buckets=7),
        logs_pb2.GetLogMarksRequest(job_id="j", buckets=7),
    ),
    Call(
        "ListJobLogs",
        lambda client, caller: client.list_job_logs(
            caller,
            "j",
            log_filter=LogFilter(min_level=3, ranks=frozenset({1}), since=5_000_000_001),
            limit=7,
            before=9,
        ),
        watch_pb2.ListJobLogsRequest(
            job_id="j",
            before_offset=9,
            page_size=7,
            min_level=watch_pb2.LOG_LEVEL_WARNING,
            filter=watch_pb2.LogFilter(
                min_level=watch_pb2.LOG_LEVEL_WARNING,
                ranks=[1],
                since=Timestamp(seconds=5, nanos=1),
            ),
        ),
    ),
    Call(
        "GetClusterStatus",
        lambda client, caller: client.get_cluster_status(caller),
        cluster_pb2.GetClusterStatusRequest(),
    ),
    Call(
        "ListNodes",
        lambda client, caller: client.list_nodes(
            caller, status_filter="ONLINE", page_size=3, page_token="t"
        ),
        cluster_pb2.ListNodesRequest(status_filter="ONLINE", page_size=3, page_token="t"),
    ),
    Call(
        "GetNode",
        lambda client, caller: client.get_node(caller, "n"),
        cluster_pb2.GetNodeRequest(node_id="n"),
    ),
    Call(
        "DrainNode",
        lambda client, caller: client.drain_node(caller, "n", force=True, reason="r"),
        cluster_pb2.DrainNodeRequest(node_id="n", force=True, reason="r"),
    ),
    Call(
        "EnableNode",
        lambda client, caller: client.enable_node(caller, "n"),
        cluster_pb2.EnableNodeRequest(node_id="n"),
    ),
    Call(
        "GetQueueStatus",
        lambda client, caller: client.get_queue_status(caller, queue_name="q"),
        queue_pb2.GetQueueStatusRequest(queue_name="q", page_size=20),
    ),
    Call(
        "SubmitEvaluation",
        lambda client, caller: client.submit_evaluation(
            caller,
            {"job_id": "j", "benchmarks": [{"name": "b", "parameters": {"k": "5"}}]},
            idempotency_key="k",
        ),
        evaluations_pb2.SubmitEvaluationRequest(
            job_id="j",
            benchmarks=[evaluations_pb2.Benchmark(name="b", parameters={"k": "5"})],
            idempotency_key="k",
        ),
    ),
    Call(
        "GetEvaluation",
        lambda client, caller: client.get_evaluation(caller, "e"),
        evaluations_pb2.GetEvaluationRequest(evaluation_id="e"),
    ),
    Call(
        "ValidateData",
        lambda client, caller: client.validate_data(caller, {"data_sources": [{"path": "p"}]}),
        data_pb2.ValidateDataRequest(data_sources=[jobs_pb2.DataSource(path="p")]),
    ),
    Call(
        "GetDataCache",
        lambda client, caller: client.get_data_cache(caller, node_id="n"),
        data_pb2.GetDataCacheRequest(node_id="n"),
    ),
]

#: Streamed.
NOT_OF_THE_CLIENT = {"WatchJob", "WatchJobs", "SearchJobLogs"}

BY_METHOD = {call.method: call for call in CALLS}
