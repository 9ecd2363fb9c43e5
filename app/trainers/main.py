"""Puts a run together: the job, its data, its model, its trainer, the export."""

import argparse
import errno
import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from .arguments import combined_arguments, writing_directory
from .checkpoints import discard_unfinished, resumable
from .errors import (
    FAILED,
    OK,
    StopRequested,
    TrainingError,
    TrainingFailed,
    TrainingRefused,
    is_out_of_memory,
)
from .frameworks import Framework, framework
from .frameworks.resuming import with_same_batch
from .hyperparameters import parse_hyperparameters
from .job import Job, read_job
from .metrics import MetricsFile, Progress, StageMetrics, StepTimes, numbers
from .stopping import StopSignal
from .types import TrainingType, training_type
from .types.adapters import adapter_asked
from .watchdog import Watchdog

log: Final = logging.getLogger(__name__)
#: Libraries that warn at their import of what this machine does not have.
_CHATTY: Final = ("torchao", "bitsandbytes", "torch.utils._pytree", "deepspeed", "DeepSpeed")
#: Characters of a library's message.
_SAID: Final = 400
#: What torch says when a file cannot be written to its end.
_TORCH_WRITES: Final = ("PytorchStreamWriter", "unexpected pos ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status: `train` (the default), or `schema`, which
    prints what hyperparameters there are."""
    parser = argparse.ArgumentParser(prog="scaimind_trainers")
    parser.add_argument("command", nargs="?", default="train", choices=("train", "schema"))
    command = parser.parse_args(arguments).command
    _prepare_environment()
    if command == "schema":
        from .schema import schema

        json.dump(schema(), sys.stdout)
        return OK
    logging.basicConfig(
        stream=sys.stdout, level=logging.WARNING, format="%(levelname)s: %(message)s"
    )
    logging.getLogger(__package__).setLevel(logging.INFO)
    # Of names that become others in versions to come; trl uses them, not the job.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.ERROR)
    stop = StopSignal()
    stop.install()
    status = _status(stop)
    if "RANK" in os.environ:
        _leave_at_once(status)
    return status


def _status(stop: StopSignal) -> int:
    """Train, say what went wrong, and return the exit status."""
    try:
        return _train(stop)
    except StopRequested:
        log.info("Asked to leave; there is nothing new to save.")
        return OK
    except TrainingError as error:
        # What led to it is for those who look into a library.
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(f"ERROR: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return error.status
    except Exception as error:  # of libraries: the owner is told in any case
        traceback.print_exception(error)
        said = " ".join(str(error).split())[:_SAID]
        print(f"ERROR: {unexpected(error)}: {said}", file=sys.stderr, flush=True)  # noqa: T201
        return FAILED


def unexpected(error: Exception) -> str:
    """Return what an error that has no message of its own means for the run."""
    if is_out_of_memory(error):
        return (
            "out of memory outside of the training itself, as while data are read or the model is"
            " exported; ask for more memory (resource_config.memory_bytes)"
        )
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Libraries in other languages have the system's words alone, torch not even those.
    if full or any(each in text for each in (os.strerror(errno.ENOSPC), *_TORCH_WRITES)):
        return (
            "a checkpoint or the model could not be written, as where the disk is full; lower"
            " output_config.max_checkpoints, or have space made"
        )
    return f"the training failed with {type(error).__name__}"


def _leave_at_once(status: int) -> NoReturn:
    """End the process without the interpreter's own end.

    That tears down threads of torch's process groups in no order, and now and then aborts: a
    run whose model is exported would have failed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prepare_environment() -> None:
    """Set what libraries read when they are imported; what the job set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Only one of the ranks has its progress in the log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if "OMP_NUM_THREADS" not in os.environ:
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
        cores = len(os.sched_getaffinity(0))
        os.environ["OMP_NUM_THREADS"] = str(max(cores // max(ranks, 1), 1))


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a run needs around its trainer."""

    job: Job
    kind: TrainingType
    framework: Framework
    stop: StopSignal


def _train(stop: StopSignal) -> int:
    job = read_job(os.environ)
    kind = training_type(job.training_type)
    spread = framework(job.framework.type)
    if job.resume_from is not None:
        job = replace(job, resume_from=resumable(job.resume_from, job.checkpoint_dir))
    parts = _Parts(job, kind, spread, stop)
    writing = writing_directory(job) if job.is_main_of_disk else None
    if writing is not None:
        discard_unfinished(writing)
    try:
        return _train_and_export(parts)
    except Exception:
        # Half a checkpoint is of no use, and may be what filled the disk.
        if writing is not None:
            discard_unfinished(writing)
        raise


def _train_and_export(parts: _Parts) -> int:
    job, stop = parts.job, parts.stop
    trainer, tokenizer, metrics, checkpoints = _build(parts)
    parts.framework.verify(trainer)
    status = _run_trainer(parts, trainer, checkpoints)
    if status is not None:
        return status
    from .export import export

    stop.deferred = False
    # A run that goes on from its last step logs none of them again.
    known = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    final = {**numbers(known), **metrics.latest}
    export(job, trainer, tokenizer, default_dtype=default_dtype(parts.kind), metrics=final)
    _leave_group()
    return OK


def default_dtype(kind: TrainingType) -> str:
    """Return how weights are kept where the job does not say: those that are trained in 32 bits,
    those that are only read in the 16 bits that a GPU computes with."""
    import torch

    if kind.adapter and torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return "bfloat16"
    return "float32"


def _build(parts: _Parts) -> tuple[Any, Any, Any, Any]:
    """Return trainer, tokenizer and callbacks. The model is loaded last."""
    job, kind = parts.job, parts.kind
    groups = kind.hyperparameters()
    given = parse_hyperparameters(job.hyperparameters, groups)
    from .callbacks import CheckpointCallback, MetricsCallback, watch_compilation
    from .data.records import read_records
    from .export import check_export
    from .model import load_model, load_tokenizer, max_length
    from .model.parts import check_trust
    from .reporting import report_start
    from .run import Run

    check_export(job, adapter=kind.adapter or adapter_asked(given))
    spread = parts.framework.arguments(job)
    check_trust(job.base_model)
    tokenizer = load_tokenizer(job.base_model, job.data)
    asked = given["arguments"].get("max_length")
    length = max_length(job.base_model, job.data, tokenizer, asked=asked)
    cache = Path(tempfile.gettempdir(), f"scaimind-data-{job.job_id or os.getppid()}")
    records = read_records(job.data, kind.forms, wanted=job.training_type, cache=cache)
    if job.is_main:
        for line in records.summary:
            log.info("Data: %s.", line)
    arguments = combined_arguments(
        job,
        given=given["arguments"],
        framework=spread,
        defaults={"max_length": length, **_device_defaults(), **kind.defaults()},
        has_validation=records.validation is not None,
        known=frozenset(field.name for field in fields(groups["arguments"])),
    )
    replicas = parts.framework.replicas(job)
    arguments = with_same_batch(arguments, job.resume_from, replicas, is_main=job.is_main)
    clock = time.monotonic

    def callbacks(
        file: MetricsFile, stage: str = ""
    ) -> tuple[MetricsCallback, CheckpointCallback, Watchdog]:
        times = StepTimes(clock)
        watchdog = Watchdog(times, file, clock)
        metrics = MetricsCallback(
            file,
            times,
            Progress(times, clock),
            watchdog,
            choose_steps="logging_steps" not in {**given["arguments"], **spread},
        )
        return (
            metrics,
            CheckpointCallback(job, writing_directory(job), parts.stop, stage),
            watchdog,
        )

    file = MetricsFile(job.metrics_file if job.is_main else None)
    metrics, checkpoints, watchdog = callbacks(file)
    run = Run(
        job=job,
        tokenizer=tokenizer,
        max_length=length,
        records=records,
        arguments=arguments,
        hyperparameters={name: group for name, group in given.items() if name != "arguments"},
        callbacks=(metrics, checkpoints),
        load_model=partial(
            load_model, job.base_model, default_dtype=default_dtype(kind), tokenizer=tokenizer
        ),
        stage_callbacks=lambda stage: callbacks(StageMetrics(file, stage), stage)[:2],
        framework=parts.framework,
        stop=parts.stop,
    )
    trainer = _built(kind, run)
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if trainer.args.torch_compile:
        watch_compilation(watchdog)
    if job.is_main:
        report_start(job, trainer, tokenizer, max_length=length)
    return trainer, tokenizer, metrics, checkpoints


def _built(kind: TrainingType, run: Any) -> Any:
    """Return the trainer of a run. Raises TrainingRefused also for what libraries refuse."""
    try:
        return kind.build(run)
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise TrainingRefused(f"the training cannot be set up: {error}") from error
    except Exception as error:  # of many libraries
        if is_out_of_memory(error):
            raise TrainingFailed(
                "out of memory while the model was loaded; use QLORA, a dtype of 16 bits, or a"
                " smaller model, or ask for more memory"
            ) from error
        raise


def _device_defaults() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"bf16": torch.cuda.is_bf16_supported()}
    return {"bf16": False, "gradient_checkpointing": False}


def _run_trainer(parts: _Parts, trainer: Any, checkpoints: Any) -> int | None:
    """Train; return the exit status if the process was asked to leave, else None."""
    from .callbacks import StoppedInEvaluation

    resume = parts.job.resume_from
    try:
        if resume is not None:
            resume = parts.framework.resumed(parts.job, resume)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        if trainer.state.global_step < trainer.state.max_steps and parts.stop.requested:
            log.info("Asked to leave; step %d is saved.", trainer.state.global_step)
            return OK
        _evaluate_at_end(trainer)
    except StoppedInEvaluation:
        _save_after_evaluation(trainer, checkpoints)
        return OK
    except Exception as error:  # of many libraries
        if is_out_of_memory(error):
            raise TrainingFailed(_out_of_memory(trainer)) from error
        raise
    return None


def _evaluate_at_end(trainer: Any) -> None:
    """Evaluate the final model, unless its last step was evaluated."""
    if trainer.eval_dataset is None:
        return
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if not history or history[-1]["step"] != trainer.state.global_step:
        trainer.evaluate()


def _save_after_evaluation(trainer: Any, checkpoints: Any) -> None:
    step = trainer.state.global_step
    if step >= trainer.state.max_steps or step == 0:
        log.info("Asked to leave; there is nothing new to save.")
        return
    trainer._save_checkpoint(trainer.model, trial=None)
    checkpoints.publish(step)
    log.info("Asked to leave; step %d is saved.", step)


def _out_of_memory(trainer: Any) -> str:
    args = trainer.args
    return (
        f"out of memory at step {trainer.state.global_step} with {args.train_batch_size} records a"
        " device; lower data_config.batch_size and raise gradient_accumulation_steps for it, lower"
        " max_seq_length, set gradient_checkpointing to true, or use LORA or QLORA"
    )


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
