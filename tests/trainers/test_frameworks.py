"""What a job asks of a framework is honoured, or refused by name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.trainers.errors import TrainingFailed, TrainingRefused
from app.trainers.frameworks import framework
from app.trainers.frameworks.deepspeed import FRAMEWORK as DEEPSPEED
from app.trainers.frameworks.deepspeed import zero_config
from app.trainers.frameworks.fsdp import FRAMEWORK as FSDP
from app.trainers.frameworks.fsdp import fsdp_config
from app.trainers.frameworks.hf_trainer import FRAMEWORK as HF_TRAINER
from app.trainers.frameworks.resuming import note_step, with_same_batch
from app.trainers.job import Job, read_job
from tests.trainers.training import job_config


def job(folder: Path, *, ranks: int = 2, **asked: Any) -> Job:
    """A job with `training_config.framework` as it is asked."""
    config = folder / "config.json"
    config.write_text(
        json.dumps(
            job_config(
                "SFT",
                model=folder / "model",
                data=folder / "a.jsonl",
                training_config={"framework": asked},
            )
        )
    )
    return read_job(
        {
            "SCAIMIND_JOB_CONFIG": str(config),
            "SCAIMIND_OUTPUT_DIR": str(folder),
            "SCAIMIND_CHECKPOINT_DIR": str(folder),
            "WORLD_SIZE": str(ranks),
        }
    )


@pytest.mark.parametrize(
    ("asked", "stage"),
    [
        ({}, 2),
        ({"config": {"stage": "1"}}, 1),
        ({"config": {"zero_stage": "3"}}, 3),
        ({"distributed": {"strategy": "zero3"}}, 3),
        ({"distributed": {"strategy": "zero_2", "config": {"stage": "2"}}}, 2),
        ({"config": {"deepspeed_config": '{"zero_optimization": {"stage": 1}}'}}, 1),
    ],
)
def test_the_stage_of_zero_may_be_named_in_several_places(
    tmp_path: Path, asked: dict[str, Any], stage: int
) -> None:
    assert zero_config(job(tmp_path, **asked))["zero_optimization"]["stage"] == stage


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"config": {"stage": "4"}}, "'4' is no ZeRO stage; use 1, 2 or 3"),
        ({"config": {"stage": "0"}}, "'0' is no ZeRO stage"),
        ({"config": {"stage": "two"}}, "'two' is no int"),
        ({"config": {"stge": "2"}}, "did you mean 'stage'"),
        ({"config": {"stage": "1"}, "distributed": {"strategy": "zero3"}}, "stages 1, 3 are named"),
        (
            {"config": {"stage": "1"}, "distributed": {"config": {"stage": "2"}}},
            "framework.config.stage and framework.distributed.config.stage differ",
        ),
        ({"distributed": {"strategy": "full_shard"}}, "'full_shard' is nothing that DEEPSPEED"),
        ({"config": {"offload_param": "cpu"}}, "offload_param: needs stage 3"),
        ({"config": {"offload_optimizer": "nvme"}}, "use one of none, cpu"),
        (
            {"config": {"deepspeed_config": '{"train_batch_size": 8}'}},
            "train_batch_size: it follows from data_config.batch_size",
        ),
        ({"config": {"deepspeed_config": '{"zero_optimization": 3}'}}, "must be an object"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingRefused, match=said):
        zero_config(job(tmp_path, **asked))


def test_deepspeed_is_set_up_as_the_job_says(tmp_path: Path) -> None:
    asked = {
        "stage": "3",
        "offload_optimizer": "cpu",
        "overlap_comm": "false",
        "reduce_bucket_size": "1000000",
        "deepspeed_config": '{"communication_data_type": "bf16", "optimizer": "auto"}',
    }
    config = zero_config(job(tmp_path, config=asked))
    assert config["communication_data_type"] == "bf16"
    assert config["zero_optimization"] == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "overlap_comm": False,
        "reduce_bucket_size": 1_000_000,
        "stage3_gather_16bit_weights_on_model_save": True,
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {}),
        ({"distributed": {"strategy": "full_shard"}}, {"reshard_after_forward": True}),
        ({"distributed": {"strategy": "shard_grad_op"}}, {"reshard_after_forward": False}),
        (
            {"config": {"fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}},
            {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]},
        ),
        ({"distributed": {"config": {"min_num_params": "1000"}}}, {"min_num_params": 1000}),
    ],
)
def test_fsdp_is_set_up_as_the_job_says(
    tmp_path: Path, asked: dict[str, Any], found: dict[str, Any]
) -> None:
    config = fsdp_config(job(tmp_path, **asked))
    assert config == {"version": 2, "state_dict_type": "FULL_STATE_DICT", **found}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"config": {"version": "1"}}, "must be 2; FSDP1"),
        ({"config": {"sharding_strategy": "FULL_SHARD"}}, "'sharding_strategy' is not known"),
        ({"config": {"auto_wrap_policy": "X"}}, "use one of TRANSFORMER_BASED_WRAP"),
        ({"distributed": {"strategy": "hybrid_shard"}}, "use full_shard or shard_grad_op"),
        (
            {
                "config": {"reshard_after_forward": "true"},
                "distributed": {"strategy": "shard_grad_op"},
            },
            "contradicts the strategy",
        ),
    ],
)
def test_what_fsdp_cannot_do_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        fsdp_config(job(tmp_path, **asked))


def test_fsdp_needs_ranks(tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match="world_size to 2 or more"):
        fsdp_config(job(tmp_path, ranks=1))


def test_an_unknown_framework_is_refused() -> None:
    with pytest.raises(TrainingRefused, match="did you mean 'DEEPSPEED'"):
        framework("DEEPSPED")


def trainer_of(kind: str, *, gpus: int = 0, ranks: int = 1) -> Any:
    """As much of a trainer as is looked at before training."""
    return SimpleNamespace(
        accelerator=SimpleNamespace(distributed_type=SimpleNamespace(value=kind)),
        args=SimpleNamespace(
            world_size=ranks,
            ddp_backend=None,
            n_gpu=gpus,
            deepspeed={"zero_optimization": {"stage": 2}},
        ),
    )


@pytest.mark.parametrize("spread", [DEEPSPEED, FSDP], ids=["deepspeed", "fsdp"])
def test_another_framework_than_the_one_asked_for_fails_the_job(
    spread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.trainers.frameworks.deepspeed.check_ranks", lambda trainer: 1)
    monkeypatch.setattr("app.trainers.frameworks.fsdp.check_ranks", lambda trainer: 1)
    with pytest.raises(TrainingFailed, match="was asked for, and MULTI_CPU was set up"):
        spread.verify(trainer_of("MULTI_CPU"))


def test_several_gpus_of_one_process_are_not_used_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.trainers.frameworks.hf_trainer.check_ranks", lambda trainer: 1)
    with pytest.raises(TrainingFailed, match="world_size to 4"):
        HF_TRAINER.verify(trainer_of("NO", gpus=4))
    with pytest.raises(TrainingFailed, match="and MULTI_GPU was set up"):
        HF_TRAINER.verify(trainer_of("MULTI_GPU"))


def test_the_batch_of_a_step_is_kept_where_the_processes_divide_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert with_same_batch({"a": 1}, None, 2, is_main=True) == {"a": 1}
    # A checkpoint of an earlier version has no note.
    assert with_same_batch({"a": 1}, tmp_path, 2, is_main=True) == {"a": 1}
    note_step(tmp_path, 4, 2)
    kept = with_same_batch({"gradient_accumulation_steps": 2}, tmp_path, 2, is_main=True)
    assert kept == {"gradient_accumulation_steps": 4}
    assert with_same_batch({"gradient_accumulation_steps": 2}, tmp_path, 4, is_main=True) == {
        "gradient_accumulation_steps": 2
    }
    kept = with_same_batch({"gradient_accumulation_steps": 2}, tmp_path, 3, is_main=True)
    assert kept == {"gradient_accumulation_steps": 2}
    assert "8 batches cannot be divided evenly among 3" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"world_size": 0, "x": 1}', "[" * 100_000])
def test_a_note_that_cannot_be_read_refuses_the_checkpoint(tmp_path: Path, text: str) -> None:
    note_step(tmp_path, 1, 1)
    (tmp_path / "scaimind_step.json").write_text(text)
    with pytest.raises(TrainingRefused, match="cannot be resumed"):
        with_same_batch({}, tmp_path, 2, is_main=True)
