"""The trained model as files: safetensors, tokenizer with its chat template, and a model card."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import TrainingRefused
from .job import Job
from .model import load_model
from .model.merging import merged
from .model_card import model_card

log: Final = logging.getLogger(__name__)
#: What the trainer adds for itself: a pickle that names this machine's paths.
_OWN_FILES: Final = ("training_args.bin",)


def check_export(job: Job, *, adapter: bool) -> None:
    """Raise TrainingRefused if the training makes nothing of the kind that is to be exported."""
    if job.output.export_format == "adapter" and not adapter:
        raise TrainingRefused(
            f"output_config.export_format: {job.training_type} trains no adapter here; use"
            " safetensors, the training type LORA or QLORA, or use_peft with DPO or RLHF"
        )


def export(
    job: Job, trainer: Any, tokenizer: Any, *, default_dtype: str, metrics: Mapping[str, float]
) -> None:
    """Write the model to the output directory. All ranks call it; the first one writes.

    An adapter is merged into its base as it was before any quantization, unless the job wants
    the adapter alone. Raises OSError, TrainingRefused.
    """
    output = job.output_dir
    output.mkdir(parents=True, exist_ok=True)
    if not _is_adapter(trainer):
        trainer.save_model(str(output))
    elif job.output.export_format == "adapter":
        trainer.save_model(str(output))
        if job.is_main:
            name_base(output, job)
    else:
        _export_merged(job, trainer, tokenizer, default_dtype=default_dtype)
    if not job.is_main:
        return
    for name in _OWN_FILES:
        (output / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(str(output))
    (output / "README.md").write_text(model_card(job, trainer, metrics), encoding="utf-8")
    log.info("The model is exported.")


def _is_adapter(trainer: Any) -> bool:
    from peft import PeftModel

    # A framework's own trainer has no accelerator, and nothing around its model.
    accelerator = getattr(trainer, "accelerator", None)
    model = accelerator.unwrap_model(trainer.model) if accelerator else trainer.model
    return isinstance(model, PeftModel)


def _export_merged(job: Job, trainer: Any, tokenizer: Any, *, default_dtype: str) -> None:
    """Write the base with the adapter merged into it.

    The base is loaded anew: what was trained may be quantized, or divided among ranks.
    """
    # All ranks need the same place, since each may have a part to write.
    adapter = job.output_dir / ".adapter.partial"
    trainer.save_model(str(adapter))
    if not job.shares_disk:
        trainer.accelerator.wait_for_everyone()
        if job.rank >= job.local_world_size:
            # Else what ranks of other nodes have there would be a part of the model.
            shutil.rmtree(adapter, ignore_errors=True)
    if not job.is_main:
        return
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # Else ZeRO-3 would divide the base, too.
    unset_hf_deepspeed_config()
    try:
        base = load_model(job.base_model, default_dtype=default_dtype, tokenizer=tokenizer)
        merged(base, adapter).save_pretrained(str(job.output_dir))
    finally:
        shutil.rmtree(adapter, ignore_errors=True)


def name_base(folder: Path, job: Job) -> None:
    """Have an adapter name its base as the job does: where it was read from means nothing
    elsewhere. Does nothing where the folder holds no adapter. Raises OSError."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.base_model.model_id
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
