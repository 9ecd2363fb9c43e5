"""RLHF: a policy that is rewarded by a reward model, which is trained first if none is named.

The policy is trained by GRPO, or by RLOO with `algorithm=rloo`. The reward is a model's alone:
no Python of the job is run.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ..data.forms import Form
from ..errors import TrainingRefused, shown
from ..hyperparameters import Groups
from ..model.parts import model_parts
from ..run import Run
from .adapters import AdapterChoice, chosen_adapter
from .preferences import prompts
from .reward import (
    FOLDER,
    RewardSettings,
    copy_reward_model,
    find_reward_model,
    is_reward_stage,
)

#: Tokens of an answer where the job does not say; no more than half of what the model sees.
_COMPLETION: Final = 512


@dataclass
class RlhfSettings:
    """What RLHF has beside its trainers' own."""

    algorithm: Literal["grpo", "rloo"] = "grpo"
    #: A reward model that is there: scaiatlas://, scaidrive://, a hub's name; empty trains one.
    reward_model: str = ""


class _Rlhf:
    """Learns to answer so that the reward is high."""

    forms = (Form.PREFERENCE, Form.IMPLICIT_PREFERENCE, Form.PROMPT)
    adapter = False

    def hyperparameters(self) -> Groups:
        """Return GRPOConfig's, RLOOConfig's others, the reward model's and an adapter's."""
        from peft import LoraConfig
        from trl import GRPOConfig, RLOOConfig

        return {
            "arguments": GRPOConfig,
            "rlhf": RlhfSettings,
            "reward": RewardSettings,
            "rloo": RLOOConfig,
            "adapter": AdapterChoice,
            "lora": LoraConfig,
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return none: GRPOConfig's own are meant."""
        return {}

    def build(self, run: Run) -> Any:
        """Return the policy's trainer. The reward model has been trained then."""
        settings = RlhfSettings(**run.hyperparameters.get("rlhf", {}))
        values = _arguments(run, settings.algorithm)
        check_groups(values, run.job.world_size)
        room = run.max_length - values["max_completion_length"]
        training, validation = prompts(run, room)
        adapter = chosen_adapter(run.hyperparameters)
        reward = find_reward_model(run, settings.reward_model, adapter)
        return _policy(run, settings, values, training, validation, adapter, reward)


def _arguments(run: Run, algorithm: str) -> dict[str, Any]:
    """Return the keywords of the algorithm's own class. Raises TrainingRefused."""
    from trl import GRPOConfig, RLOOConfig

    own = run.hyperparameters.get("rloo", {})
    values = dict(run.arguments)
    if algorithm == "grpo":
        if own:
            raise TrainingRefused(
                f"training_config.hyperparameters: {', '.join(own)} belong to RLOO; set algorithm"
                " to rloo"
            )
    else:
        known = {field.name for field in dataclasses.fields(RLOOConfig)}
        only = {field.name for field in dataclasses.fields(GRPOConfig)} - known
        if wrong := [name for name in run.job.hyperparameters if name in only]:
            raise TrainingRefused(
                f"training_config.hyperparameters: {', '.join(wrong)} belong to GRPO, and"
                " algorithm is rloo"
            )
        values = {**{name: each for name, each in values.items() if name in known}, **own}
    if is_reward_stage(run.job.resume_from) and "eval_on_start" not in run.job.hyperparameters:
        # The policy has not begun. Its evaluation draws numbers, so that without the first one it
        # would not end as that of a run which was not interrupted.
        values["eval_on_start"] = run.records.validation is not None
    values.setdefault("max_completion_length", min(_COMPLETION, run.max_length // 2))
    if not 0 < values["max_completion_length"] < run.max_length:
        raise TrainingRefused(
            "training_config.hyperparameters.max_completion_length: must be from 1 to"
            f" {run.max_length - 1}, so that the prompt has room within max_seq_length"
        )
    values.setdefault("num_generations", 8 if algorithm == "grpo" else 2)
    return values


def check_groups(values: Mapping[str, Any], ranks: int) -> None:
    """Raise TrainingRefused unless the answers of a step make whole groups."""
    size = values["num_generations"]
    batch = values.get("per_device_train_batch_size", 8)
    held = values.get("num_generations_eval") or size
    if size < 2:
        raise TrainingRefused(
            "training_config.hyperparameters.num_generations: must be 2 or more: answers to one"
            " prompt are compared"
        )
    if (batch * ranks * values.get("gradient_accumulation_steps", 1)) % size:
        raise TrainingRefused(
            f"data_config.batch_size: {batch} answers on each of {ranks} ranks, with"
            f" {values.get('gradient_accumulation_steps', 1)} accumulated, are no whole groups of"
            f" num_generations={size} answers to one prompt; choose numbers that divide"
        )
    if "per_device_eval_batch_size" in values:
        batch = values["per_device_eval_batch_size"]
        if (batch * ranks) % held:
            raise TrainingRefused(
                f"hyperparameters.per_device_eval_batch_size: {batch} answers on each of {ranks}"
                f" ranks are no whole groups of {held} answers to one prompt; choose numbers that"
                " divide, or set num_generations_eval"
            )


def _policy(
    run: Run,
    settings: RlhfSettings,
    values: Mapping[str, Any],
    training: Any,
    validation: Any,
    adapter: Any,
    reward: str,
) -> Any:
    import trl
    from transformers import set_seed

    names = ("GRPOConfig", "GRPOTrainer")
    if settings.algorithm == "rloo":
        names = ("RLOOConfig", "RLOOTrainer")
    config_class, trainer_class = (getattr(trl, name) for name in names)
    try:
        arguments = config_class(**values)
    except ValueError as error:
        raise TrainingRefused(f"training_config.hyperparameters: {error}") from error
    set_seed(arguments.seed)
    model = run.load_model()
    if arguments.beta and adapter is None and model_parts(run.job.base_model)[2]:
        _name_reference(model)
    trained = None if settings.reward_model else Path(reward)
    if trained is not None and run.job.is_main:
        copy_reward_model(trained, run.job.output_dir / FOLDER)
    policy_class = _keeping(trainer_class, trained, begin=is_reward_stage(run.job.resume_from))
    try:
        return policy_class(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=training,
            eval_dataset=validation,
            processing_class=run.tokenizer,
            peft_config=adapter,
            callbacks=[*run.callbacks],
        )
    except OSError as error:
        # Of a hub's name: nothing else is read here.
        said = " ".join(str(error).split())[:400]
        raise TrainingRefused(
            f"hyperparameters.reward_model: {shown(reward)} cannot be loaded ({said})"
        ) from error


def _name_reference(model: Any) -> None:
    """Have the trainer load its reference from what training begins with, not from its base."""
    folder = tempfile.mkdtemp(prefix="reference-")
    model.save_pretrained(folder)
    model.config._name_or_path = folder


def _keeping(trainer_class: type, reward_model: Path | None, *, begin: bool) -> type:
    """Return the trainer's class with the reward model in its checkpoints.

    With `begin` it does not go on from the checkpoint that the run does: that was the reward
    model's.
    """

    class Keeping(trainer_class):
        """Writes the reward model into each checkpoint of the policy."""

        def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
            resume = None if begin else resume_from_checkpoint
            return super().train(resume_from_checkpoint=resume, **kwargs)

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super()._save_checkpoint(*args, **kwargs)
            if reward_model is not None and self.is_world_process_zero():
                written = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
                copy_reward_model(reward_model, written / FOLDER)

    return Keeping


TYPE: Final = _Rlhf()
