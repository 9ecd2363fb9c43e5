"""The loop that trains by Megatron: what a Trainer of transformers is to the rest of a run."""

import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from transformers import DefaultFlowCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from ...data.tokenising import IGNORED
from .batches import Batch, Sizes, Steps, held_back
from .checkpointing import load_state, save_state
from .export import Exported, save_pretrained
from .model import device
from .optimizing import LearningRate, build_optimizer, divide_gradients, set_rates
from .settings import Layout, MegatronSettings
from .shape import ModelShape

log: Final = logging.getLogger(__name__)
_STATE: Final = "trainer_state.json"


class MegatronTrainer:
    """Trains a model of Megatron's. All ranks call every method together."""

    def __init__(
        self,
        *,
        args: Any,
        model: Any,
        shape: ModelShape,
        ranks: Layout,
        settings: MegatronSettings,
        dtype: torch.dtype,
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: Any,
        callbacks: list[Any],
        source: Exported,
    ) -> None:
        """`model` has its weights; `source` is what it is exported with."""
        self.args = args
        self.model = model
        self.shape = shape
        self.ranks = ranks
        self.settings = settings
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.wrapped = divide_gradients(model, settings)
        self.optimizer = build_optimizer(self.wrapped, args, settings, dtype)
        self._source = source
        model.config.finalize_model_grads_func = finalize_model_grads
        model.config.grad_scale_func = self.optimizer.scale_loss
        model.config.no_sync_func = self.wrapped.no_sync
        self._run = get_forward_backward_func()
        self._processing_class = processing_class
        is_main = dist.get_rank() == 0
        self.state = TrainerState(is_local_process_zero=is_main, is_world_process_zero=is_main)
        self.control = TrainerControl()
        self.callbacks = CallbackHandler(
            [DefaultFlowCallback, *callbacks], model, processing_class, None, None
        )
        self._steps = Steps(
            train_dataset,
            self._sizes(args.per_device_train_batch_size, args.gradient_accumulation_steps),
            seed=args.data_seed if args.data_seed is not None else args.seed,
        )
        #: Since the last line of the log.
        self._losses = torch.zeros(2, dtype=torch.float64)

    def _sizes(self, records: int, accumulated: int = 1) -> Sizes:
        return Sizes(
            micro_batch=records,
            accumulated=accumulated,
            replica=parallel_state.get_data_parallel_rank(),
            replicas=self.ranks.data,
            multiple=math.lcm(
                self.ranks.tensor if self.settings.sequence_parallel else 1,
                self.args.pad_to_multiple_of or 1,
            ),
            padding=self._processing_class.pad_token_id,
        )

    def add_callback(self, callback: Any) -> None:
        """Have a callback of transformers called."""
        self.callbacks.add_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Call it no longer."""
        self.callbacks.remove_callback(callback)

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Train to the end, or until a callback ends it. Raises TrainingFailed, OSError."""
        args, per_epoch = self.args, self._steps.per_epoch
        steps = (
            args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
        )
        if resume_from_checkpoint is not None:
            self._resume(Path(resume_from_checkpoint))
        state = self.state
        state.max_steps = steps
        state.num_train_epochs = math.ceil(steps / per_epoch)
        state.train_batch_size = args.train_batch_size
        state.compute_steps(args, steps)
        rate = LearningRate(args, steps)
        self.control = self.callbacks.on_train_begin(args, state, self.control)
        if args.eval_on_start and resume_from_checkpoint is None:
            self.evaluate()
        while state.global_step < steps and not self.control.should_training_stop:
            self.control = self.callbacks.on_step_begin(args, state, self.control)
            rate.to(state.global_step)
            norm = self._step(rate.value)
            state.global_step += 1
            state.epoch = state.global_step / per_epoch
            self.control = self.callbacks.on_step_end(args, state, self.control)
            if state.global_step % per_epoch == 0:
                self.control = self.callbacks.on_epoch_end(args, state, self.control)
            self._after_step(norm, rate.value)
        self.control = self.callbacks.on_train_end(args, state, self.control)

    def _step(self, rate: float) -> float | None:
        """Train one step; return the norm of its gradients before they are clipped."""
        self.model.train()
        self.wrapped.zero_grad_buffer()
        self.optimizer.zero_grad()
        set_rates(self.optimizer, rate, self.args.weight_decay)
        batches = self._steps.of(self.state.global_step)
        losses = self._forward(batches)
        _, norm, _ = self.optimizer.step()
        tokens = sum(batch.count for batch in batches)
        self.state.num_input_tokens_seen += _total(tokens if self._answers_for_replica else 0)
        self._losses += torch.tensor([float(losses[0] / losses[1]), 1.0], dtype=torch.float64)
        return None if norm is None else float(norm)

    @property
    def _answers_for_replica(self) -> bool:
        """Whether this rank is the one of its replica that sums are made of."""
        return bool(
            parallel_state.get_tensor_model_parallel_rank() == 0
            and parallel_state.is_pipeline_last_stage()
        )

    def _forward(self, batches: list[Batch], *, evaluate: bool = False) -> torch.Tensor:
        """Compute losses, and gradients unless it evaluates.

        Returns the sum of the tokens' losses and how many count, in all replicas.
        """
        records, tokens = batches[0].tokens.shape
        done = self._run(
            forward_step_func=partial(_forward_step, shape=self.shape, ranks=self.ranks),
            data_iterator=iter(batches),
            model=[self.wrapped],
            num_microbatches=len(batches),
            seq_length=tokens,
            micro_batch_size=records,
            forward_only=evaluate,
        )
        sums = torch.zeros(2, dtype=torch.float32, device=device())
        if self._answers_for_replica:
            for each in done:
                sums += each
        dist.all_reduce(sums)
        return sums.cpu()

    def _after_step(self, norm: float | None, rate: float) -> None:
        if self.control.should_log:
            logs = {"loss": float(self._losses[0] / self._losses[1]), "learning_rate": rate}
            if norm is not None:
                logs["grad_norm"] = norm
            logs["num_tokens"] = float(self.state.num_input_tokens_seen)
            self._losses.zero_()
            self.log(logs)
        if self.control.should_evaluate:
            self.evaluate()
        if self.control.should_save:
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callbacks.on_save(self.args, self.state, self.control)

    def log(self, logs: Mapping[str, float]) -> None:
        """Report numbers at the present step."""
        entry = {**logs}
        if self.state.epoch is not None:
            entry["epoch"] = round(self.state.epoch, 4)
        self.state.log_history.append({**entry, "step": self.state.global_step})
        self.control = self.callbacks.on_log(self.args, self.state, self.control, entry)

    def evaluate(self) -> dict[str, float]:
        """Report the mean loss of the tokens that are held back."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._held_back():
                sums += self._forward([batch], evaluate=True)
                self.control = self.callbacks.on_prediction_step(
                    self.args, self.state, self.control
                )
        metrics = {"eval_loss": float(sums[0] / sums[1])}
        self.log(metrics)
        self.control = self.callbacks.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _held_back(self) -> Iterator[Batch]:
        return held_back(self.eval_dataset, self._sizes(self.args.per_device_eval_batch_size))

    def _save_checkpoint(self, model: Any, trial: None) -> None:
        """Write a checkpoint where a Trainer would. Raises OSError."""
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        if dist.get_rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self.state.save_to_json(str(folder / _STATE))
        save_state(folder, self.model, self.optimizer)

    def _resume(self, folder: Path) -> None:
        was = TrainerState.load_from_json(str(folder / _STATE))
        for name in ("global_step", "epoch", "log_history", "num_input_tokens_seen"):
            setattr(self.state, name, getattr(was, name))
        load_state(folder, self.model, self.optimizer)

    def save_model(self, output_dir: str) -> None:
        """Write the model in transformers' layout. Raises OSError."""
        save_pretrained(self.model, self.shape, self.ranks, self._source, Path(output_dir))


def _total(count: int) -> int:
    counted = torch.tensor([count], dtype=torch.int64, device=device())
    dist.all_reduce(counted)
    return int(counted.item())


def _forward_step(batches: Iterator[Batch], model: Any, *, shape: ModelShape, ranks: Layout) -> Any:
    """Run this rank's layers; Megatron's schedules call it."""
    batch = next(batches).on(device())
    output = model(batch.tokens, None, batch.mask)
    return output, partial(_token_losses, labels=batch.labels, shape=shape, ranks=ranks)


def _token_losses(
    logits: torch.Tensor, *, labels: torch.Tensor, shape: ModelShape, ranks: Layout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the sum of the losses, how many tokens count, and both as one tensor."""
    columns = logits.shape[-1]
    rank = parallel_state.get_tensor_model_parallel_rank()
    # Rows that fill a vocabulary up are no tokens.
    real = min(max(shape.vocabulary - rank * columns, 0), columns)
    logits = logits.float()
    if real < columns:
        logits = logits.masked_fill(
            torch.arange(columns, device=logits.device) >= real, torch.finfo(logits.dtype).min
        )
    counts = labels != IGNORED
    losses = vocab_parallel_cross_entropy(logits, labels.where(counts, 0))
    total = (losses * counts).sum()
    tokens = counts.sum().to(torch.int)
    return total, tokens, torch.stack([total.detach(), tokens.to(total.dtype)])
