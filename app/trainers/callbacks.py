"""What the trainer calls at each step: metrics, the watchdog, checkpoints, the wish to leave."""

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .checkpoints import prune, publish
from .errors import TrainingFailed
from .export import name_base
from .frameworks.resuming import note_step
from .job import Job
from .metrics import MetricsFile, Progress, StepTimes, numbers
from .stopping import StopSignal, agreed
from .watchdog import Watchdog

log: Final = logging.getLogger(__name__)
#: Lines of the log for a whole run, about, where the job does not say `logging_steps`.
_LINES: Final = 100
_MOST_STEPS: Final = 10
#: Names that a line of the log leaves out: they are in the metrics.
_QUIET: Final = ("remaining_seconds", "progress", "total_steps", "step")


class StoppedInEvaluation(Exception):
    """The process was asked to leave while it evaluated; nothing of the step is saved yet."""


class MetricsCallback(TrainerCallback):
    """Reports what is logged, and keeps the watchdog informed."""

    def __init__(
        self,
        metrics: MetricsFile,
        times: StepTimes,
        progress: Progress,
        watchdog: Watchdog,
        *,
        choose_steps: bool,
    ) -> None:
        """`choose_steps` lets it decide how often is logged."""
        self._metrics = metrics
        self._times = times
        self._progress = progress
        self._watchdog = watchdog
        self._choose_steps = choose_steps
        self._pending: set[str] = set()
        #: The newest value of each name.
        self.latest: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure."""
        if self._choose_steps and state.max_steps > 0:
            state.logging_steps = max(1, min(_MOST_STEPS, state.max_steps // _LINES))
        self._progress.begin(state.global_step)
        self._times.begin()
        self._watchdog.start(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the time of the step."""
        self._times.ended()
        self._watchdog.alive(state.global_step)
        self._begins(control)
        if self._progress.is_due and not control.should_log and state.is_world_process_zero:
            self._metrics.write(state.global_step, self._reserved(args, state))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note what follows on the epoch."""
        self._begins(control)

    def _begins(self, control: TrainerControl) -> None:
        for name, begins in (
            ("evaluate", control.should_evaluate),
            ("save", control.should_save),
        ):
            if begins and name not in self._pending:
                self._pending.add(name)
                self._watchdog.pause()

    def _is_over(self, name: str) -> None:
        if name in self._pending:
            self._pending.discard(name)
            self._watchdog.resume()
        self._times.begin()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Training goes on."""
        self._is_over("evaluate")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Training goes on."""
        self._is_over("save")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report numbers. Raises TrainingFailed for a loss that is none."""
        values = numbers(logs or {})
        loss = values.get("loss")
        if state.is_world_process_zero:
            values |= self._reserved(args, state)
            if "num_tokens" in values and loss is not None:
                values |= self._progress.tokens(values["num_tokens"])
            if loss is not None:
                self._progress.measured(state.global_step)
            self.latest |= values
            self._metrics.write(state.global_step, values)
            said = ", ".join(
                f"{name} {value:.6g}" for name, value in values.items() if name not in _QUIET
            )
            log.info("step %d of %d: %s", state.global_step, state.max_steps, said)
        if loss is not None and not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} at step {state.global_step}; lower the learning_rate, use"
                " bfloat16 or float32 instead of float16, set max_grad_norm, or look for broken"
                " records in the data"
            )

    def _reserved(self, args: TrainingArguments, state: TrainerState) -> dict[str, float]:
        samples = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return self._progress.of(state.global_step, state.max_steps, state.epoch, samples)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End watching. Raises TrainingFailed where no step was taken."""
        self._watchdog.stop()
        if not state.global_step:
            raise TrainingFailed(
                "no step was taken: the records do not fill a batch of"
                f" {args.train_batch_size} on each of {args.world_size} processes; lower"
                " data_config.batch_size, or leave dataloader_drop_last out"
            )


class CheckpointCallback(TrainerCallback):
    """Publishes checkpoints, and saves one when the process is asked to leave."""

    def __init__(self, job: Job, writing: Path, stop: StopSignal, stage: str = "") -> None:
        """`stage` names a training that comes before the job's own."""
        self._job = job
        self._stage = stage
        self._writing = writing
        self._stop = stop
        self._group: object | None = None
        #: Processes, and batches that each accumulates for a step.
        self._divided = (1, 1)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From now on there is something to save."""
        self._divided = (args.world_size, args.gradient_accumulation_steps)
        if _is_distributed():
            # What ranks agree on is a tensor of the CPU, whatever carries the gradients.
            self._group = dist.new_group(backend="gloo")
            dist.barrier(group=self._group)
        self._stop.deferred = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and end if any rank was asked to leave."""
        if agreed(self._stop.requested, self._group):
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave an evaluation at once: it may take longer than there is time."""
        if self._stop.deferred and agreed(self._stop.requested, self._group):
            raise StoppedInEvaluation

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Rename the checkpoint, which all ranks wrote to, to its final name."""
        self.publish(state.global_step)

    def publish(self, step: int) -> None:
        """Rename what was written at a step to its final name, in all ranks. Raises OSError."""
        job, written = self._job, self._writing / f"checkpoint-{step}"
        self._wait_for_all()
        if not job.shares_disk:
            # The first node's comes last: it is complete when the others have theirs.
            if job.is_main_of_disk and not job.is_main:
                publish(written, job.checkpoint_dir, step, self._stage, is_part=True)
                prune(job.checkpoint_dir, job.output.max_checkpoints)
            self._wait_for_all()
        if job.is_main:
            note_step(written, *self._divided)
            name_base(written, job)
            place = publish(written, job.checkpoint_dir, step, self._stage)
            log.info("Checkpoint %s is complete.", place.name)
            prune(job.checkpoint_dir, job.output.max_checkpoints)
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        if self._group is not None:
            dist.barrier(group=self._group)


def _is_distributed() -> bool:
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def watch_compilation(watchdog: Watchdog) -> None:
    """Let the watchdog wait while torch compiles."""
    # The hooks are torch's own and not promised; without them a compilation may be complained of.
    with suppress(ImportError, AttributeError):
        from torch._dynamo.callback import callback_handler

        callback_handler.register_start_callback(lambda *_: watchdog.pause())
        callback_handler.register_end_callback(lambda *_: watchdog.resume())


def threads_of_torch(count: int) -> None:
    """Let torch compute with so many threads."""
    torch.set_num_threads(max(count, 1))
