"""A body for every schema in which each field is given, and the message that it becomes."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from marshmallow import Schema

from app.schemas.cluster import DRAIN_NODE_BODY
from app.schemas.data import VALIDATE_DATA_BODY
from app.schemas.evaluations import SUBMIT_EVALUATION_BODY
from app.schemas.jobs import (
    CANCEL_JOB_BODY,
    PAUSE_JOB_BODY,
    RESUME_JOB_BODY,
    RETRY_JOB_BODY,
    SUBMIT_JOB_BODY,
)
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest
from generated.mindcoordinator.v1.evaluations_pb2 import SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
    SubmitJobRequest,
)

RESOURCES = {
    "gpu_count": 8,
    "gpu_type": "A100-80GB",
    "gpu_memory_bytes": 2**63 - 1,
    "node_count": 2,
    "cpu_count": 64,
    "memory_bytes": 2**40,
}
SOURCE = {
    "path": "scaidrive://acme/train.jsonl",
    "type": "file",
    "split": "train",
    "format": "jsonl",
    "columns": ["prompt", "answer"],
    "filters": {"lang": "en"},
    "sampling": 0.5,
}
SUBMISSION: dict[str, Any] = {
    "name": "chat",
    "training_config": {
        "training_type": "LORA",
        "base_model": {
            "model_id": "scaiatlas://acme/llama",
            "revision": "main",
            "source": "scaiatlas",
            "tokenizer_id": "t",
            "dtype": "bfloat16",
            "trust_remote_code": False,
            "model_kwargs": {"attn": "flash"},
        },
        "framework": {
            "type": "CUSTOM",
            "config": {"a": "b"},
            "distributed": {
                "world_size": 8,
                "backend": "gloo",
                "strategy": "ddp",
                "config": {"a": "b"},
            },
            "custom_script_path": "scaidrive://acme/train.py",
        },
        "hyperparameters": {"learning_rate": "2e-5"},
        "environment": {"NCCL_DEBUG": "WARN"},
        "resume_from_checkpoint": "c1",
        "max_retries": 2,
        "priority": 10,
    },
    "data_config": {
        "sources": [SOURCE, {**SOURCE, "split": "more"}],
        "preprocess": {
            "tokenizer_id": "t",
            "tokenizer_kwargs": {"use_fast": "true"},
            "add_bos": True,
            "add_eos": True,
            "padding": "longest",
            "truncation": True,
            "chat_template": "{{ messages }}",
            "field_mapping": {"q": "prompt"},
        },
        "max_seq_length": 4096,
        "batch_size": 4,
        "gradient_accumulation_steps": 8,
        "num_workers": 2,
        "pin_memory": True,
        "validation_split": 0.05,
        "seed": -7,
    },
    "resource_config": RESOURCES,
    "output_config": {
        "path": "scaidrive://acme/out",
        "checkpoint_interval_steps": 500,
        "max_checkpoints": 3,
        "export_format": "safetensors",
        "register_model": True,
        "model_name": "chat",
    },
    "scheduling_config": {
        "queue_name": "default",
        "preemptible": True,
        "max_runtime_seconds": 2**40,
        "not_before": "2031-01-31T18:00:00.123456+01:00",
        "node_selector": {"zone": "a"},
        "node_ids": ["n1"],
    },
    "labels": {"team": "support"},
}


@dataclass(frozen=True)
class Case:
    name: str
    schema: Schema
    full: dict[str, Any]
    message: type[Message]
    #: Fields of the message that come from elsewhere than the body.
    elsewhere: frozenset[str]

    def body(self) -> dict[str, Any]:
        return deepcopy(self.full)


CASES = [
    Case(
        "submit_job",
        SUBMIT_JOB_BODY,
        SUBMISSION,
        SubmitJobRequest,
        frozenset({"idempotency_key", "validate_only"}),
    ),
    Case("cancel_job", CANCEL_JOB_BODY, {"reason": "r"}, CancelJobRequest, frozenset({"job_id"})),
    Case(
        "pause_job",
        PAUSE_JOB_BODY,
        {"save_checkpoint": False},
        PauseJobRequest,
        frozenset({"job_id"}),
    ),
    Case(
        "resume_job",
        RESUME_JOB_BODY,
        {"checkpoint_id": "c"},
        ResumeJobRequest,
        frozenset({"job_id"}),
    ),
    Case(
        "retry_job",
        RETRY_JOB_BODY,
        {"checkpoint_id": "c", "modify_resources": True, "new_resource_config": RESOURCES},
        RetryJobRequest,
        frozenset({"job_id", "idempotency_key"}),
    ),
    Case(
        "drain_node",
        DRAIN_NODE_BODY,
        {"force": True, "reason": "r"},
        DrainNodeRequest,
        frozenset({"node_id"}),
    ),
    Case(
        "submit_evaluation",
        SUBMIT_EVALUATION_BODY,
        {
            "job_id": "j",
            "model_uri": "scaiatlas://acme/m",
            "checkpoint_id": "c",
            "benchmarks": [
                {
                    "name": "perplexity",
                    "dataset": "scaidrive://acme/test.jsonl",
                    "num_samples": 100,
                    "parameters": {"k": "5"},
                }
            ],
        },
        SubmitEvaluationRequest,
        frozenset({"idempotency_key"}),
    ),
    Case(
        "validate_data",
        VALIDATE_DATA_BODY,
        {"data_sources": [SOURCE], "preview": 2},
        ValidateDataRequest,
        frozenset(),
    ),
]
BY_NAME = {case.name: case for case in CASES}
