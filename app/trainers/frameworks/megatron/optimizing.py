"""Megatron's optimizer, set by the names of TrainingArguments."""

from typing import Any, Final

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from transformers import TrainingArguments, get_scheduler

from ...errors import TrainingRefused
from .settings import MegatronSettings

#: Values of `optim` and what Megatron calls them.
OPTIMIZERS: Final = {"adamw_torch": "adam", "adamw_torch_fused": "adam"}
#: Schedules that look at the evaluations' loss.
_LOOKING: Final = ("reduce_lr_on_plateau", "greedy")


def check_arguments(args: TrainingArguments) -> None:
    """Raise TrainingRefused for what Megatron's optimizer does not do."""
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer not in OPTIMIZERS:
        raise TrainingRefused(
            f"training_config.hyperparameters.optim: MEGATRON has no {optimizer}; use one of"
            f" {', '.join(OPTIMIZERS)}"
        )
    schedule = _schedule_name(args)
    if schedule in _LOOKING:
        raise TrainingRefused(
            f"training_config.hyperparameters.lr_scheduler_type: MEGATRON does not do {schedule},"
            " which depends on evaluations; use linear, cosine, constant or another one by steps"
        )
    if args.fp16:
        raise TrainingRefused("training_config.hyperparameters.fp16: MEGATRON trains with bf16")


def _schedule_name(args: TrainingArguments) -> str:
    return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))


def divide_gradients(model: Any, settings: MegatronSettings) -> DistributedDataParallel:
    """Return a model whose gradients are summed over its replicas."""
    config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=settings.grad_reduce_in_fp32,
        use_distributed_optimizer=settings.use_distributed_optimizer,
    )
    return DistributedDataParallel(model.config, config, model)


def build_optimizer(
    model: Any, args: TrainingArguments, settings: MegatronSettings, dtype: torch.dtype
) -> Any:
    """Return Megatron's optimizer of a model that `divide_gradients` made."""
    name = OPTIMIZERS[str(getattr(args.optim, "value", args.optim))]
    config = OptimizerConfig(
        optimizer=name,
        lr=args.learning_rate,
        weight_decay=args.weight_decay,
        adam_beta1=args.adam_beta1,
        adam_beta2=args.adam_beta2,
        adam_eps=args.adam_epsilon,
        clip_grad=args.max_grad_norm or 0.0,
        bf16=dtype is torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=settings.use_distributed_optimizer,
    )
    return get_megatron_optimizer(config, [model], use_gloo_process_groups=False)


def begin_states(optimizer: Any) -> None:
    """Have the states of an optimizer that has taken no step, so that there is where to load."""
    for each in getattr(optimizer, "chained_optimizers", [optimizer]):
        inner = each.optimizer
        for group in inner.param_groups:
            for parameter in group["params"]:
                if not inner.state[parameter]:
                    inner.state[parameter] = {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load the states of an optimizer that `begin_states` prepared.

    Where they are divided, Megatron reads how many steps there were apart from the moments, and
    yet looks for it among those of torch's AdamW: it is taken out meanwhile.
    """
    moments = state.pop("param_state", None)
    if moments is None:
        optimizer.load_state_dict(state)
        return
    state.pop("param_state_sharding_type")
    optimizer.load_state_dict(state)
    (divided,) = getattr(optimizer, "chained_optimizers", [optimizer])
    states = divided.optimizer.state.values()
    steps = [each.pop("step") for each in states]
    divided.load_parameter_state_from_fully_reshardable(moments)
    for each, step in zip(states, steps, strict=True):
        # Megatron has one tensor for all, and AdamW counts in place.
        each["step"] = step.clone()


def set_rates(optimizer: Any, rate: float, weight_decay: float) -> None:
    """Set the learning rate and the weight decay of the next step.

    Megatron leaves both to a scheduler: without one, norms and biases would decay as well.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay * group["wd_mult"]


class LearningRate:
    """The learning rate of each step, by the schedules of transformers."""

    def __init__(self, args: TrainingArguments, steps: int) -> None:
        # Their schedules set the rate of an optimizer of torch's; this one trains nothing.
        self._stand_in = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
        self._schedule = get_scheduler(
            _schedule_name(args),
            self._stand_in,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs or {},
        )

    def to(self, step: int) -> None:
        """Set the rate to that of a step, counted from 0; never to an earlier one's."""
        while self._schedule.last_epoch < step:
            self._stand_in.step()
            self._schedule.step()

    @property
    def value(self) -> float:
        """The rate of the step that is next."""
        return float(self._stand_in.param_groups[0]["lr"])
