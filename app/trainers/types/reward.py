"""The reward model of RLHF: trained from preference pairs, or one that is there."""

import json
import logging
import os
import shutil
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..arguments import writing_directory
from ..data.forms import Form
from ..errors import StopRequested, TrainingRefused, shown
from ..frameworks.disks import bring_to_other_disks
from ..job import Job
from ..model.merging import merged
from ..model.parts import refuse_pickles
from ..run import Run
from .preferences import preference_pairs

log: Final = logging.getLogger(__name__)

#: Of its metrics and its checkpoints.
STAGE: Final = "reward_model"
#: Where the reward model lies in a checkpoint of the policy, and in the output.
FOLDER: Final = "reward_model"
#: In a checkpoint of the reward model's own training.
_MARK: Final = "reward_model_stage"
_MAX_CONFIG: Final = 1024 * 1024


@dataclass
class RewardSettings:
    """How the reward model is trained where none is named."""

    #: Steps; -1 goes by epochs.
    reward_max_steps: int = -1
    reward_num_train_epochs: float = 1.0
    reward_learning_rate: float = 1e-4
    #: Pulls the mean reward towards 0.
    center_rewards_coefficient: float | None = None


def is_reward_stage(checkpoint: Path | None) -> bool:
    """Whether a checkpoint is of the reward model's training."""
    return checkpoint is not None and (checkpoint / _MARK).is_file()


def find_reward_model(run: Run, named: str, adapter: Any) -> str:
    """Return the folder (or a hub's name) of the reward model; it is trained if need be.

    `named` is what the job names, empty for none. All ranks call it. Raises TrainingRefused,
    TrainingFailed, StopRequested.
    """
    job = run.job
    if named:
        return _named(job, named)
    kept = job.resume_from / FOLDER if job.resume_from else None
    if kept is not None and kept.is_dir():
        # That of the run which is gone on with: another one would not be the same reward.
        return str(kept)
    if run.records.form is Form.PROMPT:
        raise TrainingRefused(
            "RLHF: the records are prompts alone, and no reward model is named; set"
            " hyperparameters.reward_model, or give records of the form prompt + chosen + rejected"
            " to train one"
        )
    return str(_train(run, adapter))


def _named(job: Job, named: str) -> str:
    """Return where the reward model that the job names lies. Raises TrainingRefused."""
    where = str(job.hyperparameter_paths.get("reward_model", named))
    if "://" in where or (where.startswith("/") and not Path(where).is_dir()):
        raise TrainingRefused(
            f"hyperparameters.reward_model: {shown(named)} was not fetched for this run; name a"
            " folder by scaiatlas:// or scaidrive://"
        )
    if Path(where).is_dir():
        _check_classifier(Path(where), named)
    return where


def _check_classifier(folder: Path, named: str) -> None:
    """Raise TrainingRefused unless a folder has a sequence classifier with one output."""
    refuse_pickles(
        folder, f"hyperparameters.reward_model: {shown(named)}", "name another reward model"
    )
    try:
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG))
        architectures = [str(each) for each in config.get("architectures") or ()]
        labels = len(config.get("id2label") or {"0": "", "1": ""})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise TrainingRefused(
            f"hyperparameters.reward_model: {shown(named)} has no config.json of transformers"
            f" ({error})"
        ) from None
    if not any(each.endswith("ForSequenceClassification") for each in architectures):
        raise TrainingRefused(
            f"hyperparameters.reward_model: {shown(named)} is no classifier but"
            f" {', '.join(architectures) or 'a model of unknown architecture'}; a reward model is"
            " a ...ForSequenceClassification with one label, as RLHF exports it in reward_model/"
        )
    if labels != 1:
        raise TrainingRefused(
            f"hyperparameters.reward_model: {shown(named)} has {labels} labels; a reward model has"
            " one, the reward"
        )


def _train(run: Run, adapter: Any) -> Path:
    """Train a reward model on the job's pairs; return where it is."""
    from transformers import AutoModelForSequenceClassification, PrinterCallback, set_seed
    from trl import RewardTrainer

    from ..callbacks import StoppedInEvaluation

    arguments = _arguments(run)
    training, validation = preference_pairs(run, int(arguments.max_length))
    set_seed(arguments.seed)
    model = run.load_model(auto_class=AutoModelForSequenceClassification, num_labels=1)
    model.config.pad_token_id = run.tokenizer.pad_token_id
    if adapter is not None:
        adapter = copy(adapter)
        adapter.task_type = "SEQ_CLS"
        # The layer that says the reward is new: it is trained as a whole.
        adapter.modules_to_save = [*(adapter.modules_to_save or ()), "score"]
    callbacks = run.stage_callbacks(STAGE)
    trainer = _marking(RewardTrainer)(
        model=model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation,
        processing_class=run.tokenizer,
        peft_config=adapter,
        callbacks=[*callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    run.framework.verify(trainer)
    log.info("RLHF trains its reward model first, on %d pairs.", len(training))
    resume = run.job.resume_from if is_reward_stage(run.job.resume_from) else None
    if resume is not None:
        resume = run.framework.resumed(run.job, resume)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except StoppedInEvaluation:
        if (step := trainer.state.global_step) > 0:
            trainer._save_checkpoint(trainer.model, trial=None)
            callbacks[-1].publish(step)
        raise StopRequested from None
    if trainer.state.global_step < trainer.state.max_steps and run.stop.requested:
        raise StopRequested
    run.stop.deferred = False
    if validation is not None:
        trainer.evaluate()
    return _save(run, trainer, adapted=adapter is not None)


def _arguments(run: Run) -> Any:
    """Return RewardConfig's arguments: the policy's where both have them, and its own."""
    import dataclasses

    from trl import RewardConfig

    own = {**vars(RewardSettings()), **run.hyperparameters.get("reward", {})}
    known = {field.name for field in dataclasses.fields(RewardConfig) if field.init}
    values = {name: value for name, value in run.arguments.items() if name in known}
    for name in ("max_steps", "num_train_epochs", "learning_rate"):
        values[name] = own[f"reward_{name}"]
    values["center_rewards_coefficient"] = own["center_rewards_coefficient"]
    values["max_length"] = run.max_length
    # The policy's are counted in its own steps.
    values.pop("warmup_steps", None)
    return RewardConfig(**values)


def _marking(trainer_class: type) -> type:
    class Marking(trainer_class):
        """Marks its checkpoints as the reward model's."""

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super()._save_checkpoint(*args, **kwargs)
            if self.is_world_process_zero():
                step = self.state.global_step
                Path(self.args.output_dir, f"checkpoint-{step}", _MARK).touch()

    return Marking


def _save(run: Run, trainer: Any, *, adapted: bool) -> Path:
    """Write the reward model beside the checkpoints, whole; return where it is."""
    folder = writing_directory(run.job) / FOLDER
    if not adapted:
        trainer.save_model(str(folder))
    else:
        _save_merged(run, trainer, folder)
    if run.job.is_main:
        run.tokenizer.save_pretrained(str(folder))
        (folder / "training_args.bin").unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()
    bring_to_other_disks(folder, run.job)
    return folder


def _save_merged(run: Run, trainer: Any, folder: Path) -> None:
    """Write the reward model with its adapter merged into the base, which is loaded anew: what
    was trained may be divided among ranks."""
    from transformers import AutoModelForSequenceClassification
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    adapter = folder.with_name(f"{folder.name}.adapter")
    trainer.save_model(str(adapter))
    if run.job.is_main:
        # Else ZeRO-3 would divide the base, too.
        unset_hf_deepspeed_config()
        base = run.load_model(auto_class=AutoModelForSequenceClassification, num_labels=1)
        base.config.pad_token_id = run.tokenizer.pad_token_id
        merged(base, adapter).save_pretrained(str(folder))


def copy_reward_model(source: Path, folder: Path) -> None:
    """Put a reward model into a folder, as further names of its files where that can be."""

    def place(file: str, to: str) -> None:
        # An earlier run of the job may have left it there, even as a name of the same file.
        Path(to).unlink(missing_ok=True)
        try:
            os.link(file, to)
        except OSError:
            shutil.copyfile(file, to)

    shutil.copytree(source, folder, copy_function=place, dirs_exist_ok=True)
