"""Every endpoint that is one call of the coordinator: what is sent, what arrives, what is answered.

The streams are not here: they have tests of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1 import (
    cluster_pb2,
    data_pb2,
    evaluations_pb2,
    jobs_pb2,
    logs_pb2,
    queue_pb2,
    watch_pb2,
)

PREFIX = "/v1/modules/scaimind"
DRIVE_PREFIX = "/v1/drive"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint and an exchange that succeeds."""

    method: str
    #: As it is declared, below the prefix.
    route: str
    rpc: str
    #: What the coordinator is to be asked.
    request: Message
    #: What it answers, and a part of what the caller is to get.
    response: Message
    data: Mapping[str, Any]
    #: Any one of these.
    permissions: frozenset[str] = frozenset({"scaimind:view"})
    path: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    body_optional: bool = False
    status: int = 200

    @property
    def url(self) -> str:
        """The path that is asked for."""
        route = self.path or self.route
        return route if route.startswith(DRIVE_PREFIX) else PREFIX + route

    def __str__(self) -> str:
        return f"{self.method} {self.route}"


VIEW = frozenset({"scaimind:view"})
MANAGE = frozenset({"scaimind:manage"})
CLUSTER_ADMIN = frozenset({"scaimind:cluster_admin"})
EVALUATE = frozenset({"scaimind:evaluate"})
ALL = VIEW | MANAGE | CLUSTER_ADMIN | EVALUATE
READ_EVALUATIONS = frozenset({"scaimind:view", "scaimind:evaluate"})

SUBMISSION: Mapping[str, Any] = {
    "name": "my job",
    "training_config": {
        "training_type": "LORA",
        "base_model": {"model_id": "scaiatlas://acme/base"},
        "framework": {"type": "HF_TRAINER"},
        "hyperparameters": {"lr": "0.001"},
    },
    "data_config": {"sources": [{"path": "scaidrive://acme/train.jsonl"}]},
    "resource_config": {"gpu_count": 2, "gpu_type": "A100-80GB"},
    "labels": {"team": "nlp"},
}

_JOB = jobs_pb2.Job(
    job_id="job-1",
    tenant_id="acme",
    status=jobs_pb2.JOB_STATUS_TRAINING,
    created_at=Timestamp(seconds=1_700_000_000),
    revision=2**62 + 1,
)
_JOB_DATA = {
    "job_id": "job-1",
    "status": "TRAINING",
    "created_at": "2023-11-14T22:13:20Z",
    "revision": 2**62 + 1,
}

ENDPOINTS = (
    Endpoint(
        "GET",
        "/jobs",
        "ListJobs",
        jobs_pb2.ListJobsRequest(
            statuses=[jobs_pb2.JOB_STATUS_TRAINING, jobs_pb2.JOB_STATUS_FAILED],
            page_size=7,
            page_token="next",
            order_by="name desc",
        ),
        jobs_pb2.ListJobsResponse(jobs=[_JOB], next_page_token="more", total_count=12),
        {"next_page_token": "more", "total_count": 12},
        query={
            "status": ["TRAINING", "FAILED"],
            "page_size": "7",
            "page_token": "next",
            "order_by": "name desc",
        },
    ),
    Endpoint(
        "POST",
        "/jobs",
        "SubmitJob",
        jobs_pb2.SubmitJobRequest(
            name="my job",
            training_config=jobs_pb2.TrainingConfig(
                training_type=jobs_pb2.TRAINING_TYPE_LORA,
                base_model=jobs_pb2.BaseModel(model_id="scaiatlas://acme/base"),
                framework=jobs_pb2.Framework(type=jobs_pb2.FRAMEWORK_TYPE_HF_TRAINER),
                hyperparameters={"lr": "0.001"},
                priority=5,
            ),
            data_config=jobs_pb2.DataConfig(
                sources=[jobs_pb2.DataSource(path="scaidrive://acme/train.jsonl")],
                gradient_accumulation_steps=1,
            ),
            resource_config=jobs_pb2.ResourceConfig(
                gpu_count=2, gpu_type="A100-80GB", node_count=1
            ),
            labels={"team": "nlp"},
        ),
        jobs_pb2.SubmitJobResponse(
            job_id="job-1", status=jobs_pb2.JOB_STATUS_QUEUED, estimated_wait_seconds=30
        ),
        {"job_id": "job-1", "status": "QUEUED", "message": "", "estimated_wait_seconds": 30},
        permissions=MANAGE,
        body=SUBMISSION,
        status=201,
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}",
        "GetJob",
        jobs_pb2.GetJobRequest(job_id="job-1"),
        _JOB,
        _JOB_DATA,
        path="/jobs/job-1",
    ),
    Endpoint(
        "PATCH",
        "/jobs/{job_id}",
        "UpdateJob",
        jobs_pb2.UpdateJobRequest(
            job_id="job-1",
            name="better",
            labels={"team": "nlp"},
            update_mask=FieldMask(paths=["name", "labels.team", "labels.draft"]),
        ),
        _JOB,
        _JOB_DATA,
        permissions=MANAGE,
        path="/jobs/job-1",
        body={"name": "better", "labels": {"team": "nlp", "draft": None}},
    ),
    Endpoint(
        "DELETE",
        "/jobs/{job_id}",
        "DeleteJob",
        jobs_pb2.DeleteJobRequest(job_id="job-1"),
        jobs_pb2.DeleteJobResponse(freed_bytes=2**53),
        {"job_id": "job-1", "freed_bytes": 2**53},
        permissions=MANAGE,
        path="/jobs/job-1",
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/checkpoints",
        "ListCheckpoints",
        jobs_pb2.ListCheckpointsRequest(job_id="job-1", page_size=7, page_token="next"),
        jobs_pb2.ListCheckpointsResponse(
            checkpoints=[jobs_pb2.Checkpoint(checkpoint_id="step-7", step=7, size_bytes=2**53)],
            next_page_token="more",
            total_count=20_000,
        ),
        {
            "checkpoints": [
                {
                    "checkpoint_id": "step-7",
                    "step": 7,
                    "path": "",
                    "size_bytes": 2**53,
                    "created_at": None,
                }
            ],
            "next_page_token": "more",
            "total_count": 20_000,
        },
        path="/jobs/job-1/checkpoints",
        query={"page_size": "7", "page_token": "next"},
    ),
    Endpoint(
        "POST",
        "/jobs/{job_id}/cancel",
        "CancelJob",
        jobs_pb2.CancelJobRequest(job_id="job-1", reason="enough"),
        _JOB,
        _JOB_DATA,
        permissions=MANAGE,
        path="/jobs/job-1/cancel",
        body={"reason": "enough"},
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/jobs/{job_id}/pause",
        "PauseJob",
        jobs_pb2.PauseJobRequest(job_id="job-1", save_checkpoint=False),
        _JOB,
        _JOB_DATA,
        permissions=MANAGE,
        path="/jobs/job-1/pause",
        body={"save_checkpoint": False},
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/jobs/{job_id}/resume",
        "ResumeJob",
        jobs_pb2.ResumeJobRequest(job_id="job-1", checkpoint_id="ckpt-3"),
        _JOB,
        _JOB_DATA,
        permissions=MANAGE,
        path="/jobs/job-1/resume",
        body={"checkpoint_id": "ckpt-3"},
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/jobs/{job_id}/retry",
        "RetryJob",
        jobs_pb2.RetryJobRequest(
            job_id="job-1",
            modify_resources=True,
            new_resource_config=jobs_pb2.ResourceConfig(gpu_count=1, node_count=1),
        ),
        jobs_pb2.Job(job_id="job-2", parent_job_id="job-1"),
        {"job_id": "job-2", "parent_job_id": "job-1"},
        permissions=MANAGE,
        path="/jobs/job-1/retry",
        body={"modify_resources": True, "new_resource_config": {"gpu_count": 1}},
        body_optional=True,
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/metrics",
        "GetJobMetrics",
        watch_pb2.GetJobMetricsRequest(job_id="job-1", max_points=50),
        watch_pb2.GetJobMetricsResponse(),
        {},
        path="/jobs/job-1/metrics",
        query={"max_points": "50"},
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/log-entries",
        "ListJobLogs",
        watch_pb2.ListJobLogsRequest(
            job_id="job-1", after=watch_pb2.LogPosition(epoch="e1", offset=4), page_size=7
        ),
        watch_pb2.ListJobLogsResponse(
            epoch="e1", next_after_offset=9, first_offset=1, last_offset=20
        ),
        {"scanned_to": 9, "next": 10, "entries": []},
        path="/jobs/job-1/log-entries",
        query={"from": "5", "limit": "7", "epoch": "e1"},
    ),
    Endpoint(
        "GET",
        "/jobs/{job_id}/log-marks",
        "GetLogMarks",
        logs_pb2.GetLogMarksRequest(job_id="job-1", buckets=3),
        logs_pb2.LogMarks(epoch="e1", run_offsets=[1]),
        {"epoch": "e1", "buckets": [], "run_offsets": [1]},
        path="/jobs/job-1/log-marks",
        query={"buckets": "3"},
    ),
    Endpoint(
        "GET",
        "/cluster",
        "GetClusterStatus",
        cluster_pb2.GetClusterStatusRequest(),
        cluster_pb2.ClusterStatus(total_nodes=8, cluster_utilization=0.5),
        {"total_nodes": 8, "online_nodes": 0, "cluster_utilization": 0.5},
    ),
    Endpoint(
        "GET",
        "/cluster/nodes",
        "ListNodes",
        cluster_pb2.ListNodesRequest(status_filter="ONLINE", page_size=3, page_token="t"),
        cluster_pb2.ListNodesResponse(total_count=8),
        {"nodes": [], "next_page_token": "", "total_count": 8},
        query={"status_filter": "ONLINE", "page_size": "3", "page_token": "t"},
    ),
    Endpoint(
        "GET",
        "/cluster/nodes/{node_id}",
        "GetNode",
        cluster_pb2.GetNodeRequest(node_id="node-1"),
        cluster_pb2.Node(node_id="node-1", status=cluster_pb2.NODE_STATUS_ONLINE),
        {"node_id": "node-1", "status": "ONLINE"},
        path="/cluster/nodes/node-1",
    ),
    Endpoint(
        "POST",
        "/cluster/nodes/{node_id}/drain",
        "DrainNode",
        cluster_pb2.DrainNodeRequest(node_id="node-1", force=True, reason="repair"),
        cluster_pb2.Node(node_id="node-1", status=cluster_pb2.NODE_STATUS_DRAINING),
        {"node_id": "node-1", "status": "DRAINING"},
        permissions=CLUSTER_ADMIN,
        path="/cluster/nodes/node-1/drain",
        body={"force": True, "reason": "repair"},
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/cluster/nodes/{node_id}/enable",
        "EnableNode",
        cluster_pb2.EnableNodeRequest(node_id="node-1"),
        cluster_pb2.Node(node_id="node-1", status=cluster_pb2.NODE_STATUS_ONLINE),
        {"node_id": "node-1", "status": "ONLINE"},
        permissions=CLUSTER_ADMIN,
        path="/cluster/nodes/node-1/enable",
        body={},
        body_optional=True,
    ),
    Endpoint(
        "GET",
        "/queue",
        "GetQueueStatus",
        queue_pb2.GetQueueStatusRequest(queue_name="fast", page_size=5, page_token="next"),
        queue_pb2.GetQueueStatusResponse(
            queued_jobs=[queue_pb2.QueuedJob(job_id="job-1", position=2)], total_queued=2
        ),
        {"total_queued": 2, "estimated_wait_seconds": 0},
        query={"queue_name": "fast", "page_size": "5", "page_token": "next"},
    ),
    Endpoint(
        "GET",
        "/evaluations",
        "ListJobs",
        jobs_pb2.ListJobsRequest(page_size=4, page_token="t", label_filter={"type": "evaluation"}),
        jobs_pb2.ListJobsResponse(jobs=[_JOB], total_count=1),
        {"next_page_token": "", "total_count": 1},
        permissions=READ_EVALUATIONS,
        query={"page_size": "4", "page_token": "t"},
    ),
    Endpoint(
        "POST",
        "/evaluations",
        "SubmitEvaluation",
        evaluations_pb2.SubmitEvaluationRequest(
            job_id="job-1",
            benchmarks=[evaluations_pb2.Benchmark(name="perplexity", num_samples=10)],
        ),
        evaluations_pb2.Evaluation(evaluation_id="eval-1", status=jobs_pb2.JOB_STATUS_QUEUED),
        {"evaluation_id": "eval-1", "status": "QUEUED"},
        permissions=EVALUATE,
        body={"job_id": "job-1", "benchmarks": [{"name": "perplexity", "num_samples": 10}]},
        status=201,
    ),
    Endpoint(
        "GET",
        "/evaluations/{evaluation_id}",
        "GetEvaluation",
        evaluations_pb2.GetEvaluationRequest(evaluation_id="eval-1"),
        evaluations_pb2.Evaluation(evaluation_id="eval-1"),
        {"evaluation_id": "eval-1", "results": []},
        permissions=READ_EVALUATIONS,
        path="/evaluations/eval-1",
    ),
    Endpoint(
        "POST",
        "/data/validate",
        "ValidateData",
        data_pb2.ValidateDataRequest(
            data_sources=[jobs_pb2.DataSource(path="scaidrive://acme/foo.jsonl", format="jsonl")]
        ),
        data_pb2.ValidateDataResponse(
            valid=True,
            validations=[data_pb2.DataValidation(path="p", accessible=True, size_bytes=2**53 + 1)],
        ),
        {"valid": True},
        permissions=MANAGE,
        body={"data_sources": [{"path": "scaidrive://acme/foo.jsonl", "format": "jsonl"}]},
    ),
    Endpoint(
        "GET",
        "/data/cache",
        "GetDataCache",
        data_pb2.GetDataCacheRequest(node_id="node-1"),
        data_pb2.DataCache(total_cache_size_bytes=5),
        {"total_cache_size_bytes": 5, "used_cache_size_bytes": 0, "datasets": []},
        permissions=MANAGE,
        query={"node_id": "node-1"},
    ),
)

STREAMS = (
    "/jobs/{job_id}/logs",
    "/jobs/{job_id}/logs/search",
    "/jobs/{job_id}/metrics/stream",
    "/events",
)
#: Many calls in one: a failure is told of its job alone.
SUMMARY_OF_METRICS = "/metrics-summary"
TICKETS = "/stream-tickets"
#: Answered by the job cache alone, to who holds scaimind:view.
CACHED = ("/summary",)
#: Of the drive: what is needed, and a request that is let in, with its status.
DRIVE = {
    ("GET", "/v1/drive/{path}"): (VIEW, "/v1/drive/none", 404),
    ("PUT", "/v1/drive/{path}"): (MANAGE, "/v1/drive/", 409),
    ("DELETE", "/v1/drive/{path}"): (MANAGE, "/v1/drive/none", 404),
    # Without the protocol's header.
    ("POST", "/v1/drive-uploads/"): (MANAGE, "/v1/drive-uploads/", 412),
    ("PATCH", "/v1/drive-uploads/{upload_id}"): (MANAGE, f"/v1/drive-uploads/{'x' * 22}", 412),
    ("DELETE", "/v1/drive-uploads/{upload_id}"): (MANAGE, f"/v1/drive-uploads/{'x' * 22}", 412),
    ("POST", "/v1/drive-uploads/{upload_id}"): (MANAGE, f"/v1/drive-uploads/{'x' * 22}", 405),
}
#: Those that the gateway answers by itself to whoever has any permission, and how.
OWN = {("POST", "/console-codes"): 201, ("DELETE", "/console-sessions/current"): 404}
