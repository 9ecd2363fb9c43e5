"""Compare the bridge's converters with protobuf's MessageToDict, in one run.

.venv/bin/python -m scripts.bench.converters
"""

import timeit
from collections.abc import Callable

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.converters import converter_of
from generated.mindcoordinator.v1.jobs_pb2 import (
    FRAMEWORK_TYPE_DEEPSPEED,
    JOB_STATUS_TRAINING,
    TRAINING_TYPE_LORA,
    BaseModel,
    Checkpoint,
    DataConfig,
    DataSource,
    DistributedConfig,
    Framework,
    Job,
    JobProgress,
    OutputConfig,
    ResourceConfig,
    SchedulingConfig,
    TrainingConfig,
)
from generated.mindcoordinator.v1.watch_pb2 import LOG_LEVEL_INFO, LogEntry, MetricsSnapshot

ROUNDS = 7
TARGET = 2.0


def main() -> int:
    """Print microseconds per message and the ratio; 1 if a target is missed."""
    print(f"{'message':<16} {'MessageToDict':>14} {'converter':>10} {'ratio':>7}")
    missed = 0
    for message in (job(), log_entry(), metrics_snapshot()):
        theirs, ours = compare(message)
        ratio = theirs / ours
        missed += ratio < TARGET
        name = type(message).__name__
        print(f"{name:<16} {theirs * 1e6:>11.1f} us {ours * 1e6:>7.1f} us {ratio:>6.1f}x")
    return int(missed > 0)


def compare(message: Message) -> tuple[float, float]:
    """Time both, taking turns so that a busy machine disturbs them alike."""
    convert = converter_of(type(message))

    def theirs() -> object:
        return MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    def ours() -> object:
        return convert(message)

    rounds = [(seconds(theirs, 500), seconds(ours, 2000)) for _ in range(ROUNDS)]
    return min(each[0] for each in rounds), min(each[1] for each in rounds)


def seconds(call: Callable[[], object], times: int) -> float:
    """Time one call."""
    return timeit.timeit(call, number=times) / times


def log_entry() -> LogEntry:
    """Make a line of about 200 bytes with two fields."""
    return LogEntry(
        offset=1_234_567,
        level=LOG_LEVEL_INFO,
        message="step 1200/50000 loss 1.8342 grad_norm 0.7712 lr 1.9e-05 tok/s 48211 " * 3,
        timestamp=Timestamp(seconds=1_790_000_000, nanos=123_456_000),
        source="stdout",
        rank=3,
        node_id="gpu-node-07",
        fields={"step": "1200", "loss": "1.8342"},
    )


def metrics_snapshot() -> MetricsSnapshot:
    """Make a snapshot with everything measured."""
    return MetricsSnapshot(
        sequence=1200,
        step=1200,
        timestamp=Timestamp(seconds=1_790_000_000, nanos=5_000_000),
        epoch=0.42,
        loss=1.8342,
        learning_rate=1.9e-5,
        grad_norm=0.77,
        samples_per_second=96.0,
        tokens_per_second=48211.0,
        gpu_utilization=0.97,
        gpu_memory_bytes=70 * 2**30,
        eval_metrics={"loss": 1.91},
        extra={"router_z_loss": 0.02},
    )


def job() -> Job:
    """Make a running job with all configs and three checkpoints."""
    stamp = Timestamp(seconds=1_790_000_000, nanos=250_000_000)
    return Job(
        job_id="job_01JF8Z6Q2V",
        tenant_id="acme",
        user_id="ann@acme.example",
        name="llama-3-8b support chat, LoRA",
        status=JOB_STATUS_TRAINING,
        message="Training on 2 nodes.",
        training_config=TrainingConfig(
            training_type=TRAINING_TYPE_LORA,
            base_model=BaseModel(
                model_id="scaiatlas://acme/llama-3-8b",
                revision="main",
                dtype="bfloat16",
                model_kwargs={"attn_implementation": "flash_attention_2"},
            ),
            framework=Framework(
                type=FRAMEWORK_TYPE_DEEPSPEED,
                config={"zero_stage": "3", "offload": "none"},
                distributed=DistributedConfig(world_size=8, backend="nccl", strategy="zero3"),
            ),
            hyperparameters={
                "learning_rate": "2e-5",
                "num_train_epochs": "3",
                "lora_r": "16",
                "lora_alpha": "32",
                "warmup_ratio": "0.03",
            },
            environment={"NCCL_DEBUG": "WARN"},
            max_retries=2,
            priority=6,
        ),
        data_config=DataConfig(
            sources=[
                DataSource(path="scaidrive://acme/chat/train.jsonl", format="jsonl"),
                DataSource(path="scaidrive://acme/chat/more.jsonl", columns=["prompt", "answer"]),
            ],
            max_seq_length=4096,
            batch_size=4,
            gradient_accumulation_steps=8,
            validation_split=0.05,
            seed=42,
        ),
        resource_config=ResourceConfig(gpu_count=8, gpu_type="A100-80GB", node_count=2),
        output_config=OutputConfig(
            path="scaidrive://acme/models/chat", checkpoint_interval_steps=500, max_checkpoints=3
        ),
        scheduling_config=SchedulingConfig(queue_name="default", node_selector={"zone": "a"}),
        labels={"team": "support", "type": "training"},
        created_at=stamp,
        started_at=stamp,
        updated_at=stamp,
        revision=4711,
        run_count=1,
        progress=JobProgress(step=1200, total_steps=50_000, epoch=0.42, loss=1.8342),
        checkpoints=[
            Checkpoint(
                checkpoint_id=f"ckpt-{step}",
                step=step,
                path=f"scaidrive://acme/models/chat/ckpt-{step}",
                size_bytes=330_000_000,
                created_at=stamp,
            )
            for step in (0, 500, 1000)
        ],
        node_ids=["gpu-node-07", "gpu-node-08"],
    )


if __name__ == "__main__":
    raise SystemExit(main())
