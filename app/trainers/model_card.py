"""The model's card: what it was made of, how, and how well."""

import json
from collections.abc import Mapping
from typing import Any, Final

from .job import Job

#: Characters of a value.
_SHOWN: Final = 200
_METRICS: Final = ("loss", "learning_rate", "epoch", "num_tokens", "mean_train_loss")


def model_card(job: Job, trainer: Any, metrics: Mapping[str, float]) -> str:
    """Return the card as Markdown, with the head that model registries read."""
    args = trainer.args
    head = {
        "base_model": job.base_model.model_id,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [job.training_type.lower(), "scaimind"],
    }
    # JSON is YAML.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {_plain(job.output.model_name or job.name or job.base_model.model_id)}", ""]
    lines += [
        f"Made by job `{job.job_id}` from `{_plain(job.base_model.model_id)}`"
        f" by {job.training_type} with {job.framework.type}.",
        "",
    ]
    lines += ["## Data", "", *_data(job), ""]
    lines += ["## Hyperparameters", "", "| name | value |", "|---|---|"]
    lines += [f"| {name} | {_plain(str(value))} |" for name, value in _hyperparameters(job, args)]
    lines += ["", "## Final metrics", "", "| name | value |", "|---|---|"]
    lines += [
        f"| {_plain(name)} | {value:.6g} |"
        for name, value in sorted(metrics.items())
        if name in _METRICS or name.startswith(("eval_", "train_"))
    ]
    return "\n".join(lines) + "\n"


def _data(job: Job) -> list[str]:
    lines = []
    for source in job.data.sources:
        details = [
            f"split {source.split}" if source.split else "",
            f"filters {json.dumps(dict(source.filters))}" if source.filters else "",
            f"a sample of {source.sampling:g}" if source.sampling < 1 else "",
        ]
        said = ", ".join(detail for detail in details if detail)
        lines.append(f"- `{_plain(source.path)}`" + (f" ({_plain(said)})" if said else ""))
    if job.data.validation_split:
        lines.append(f"- {job.data.validation_split:g} of the records was held back.")
    return lines


def _hyperparameters(job: Job, args: Any) -> list[tuple[str, Any]]:
    shown = {
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        "optim": getattr(args.optim, "value", args.optim),
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "processes": args.world_size,
        "seed": args.seed,
    }
    if args.max_steps > 0:
        shown["max_steps"] = args.max_steps
    else:
        shown["num_train_epochs"] = args.num_train_epochs
    return sorted({**shown, **job.hyperparameters}.items())


def _plain(text: str) -> str:
    """Return a text from outside as a cell of a table holds it."""
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
