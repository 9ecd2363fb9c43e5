"""Where the base model and the adapters on it lie, and whether their weights may be read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import TrainingRefused, shown
from ..job import BaseModel

_ADAPTER: Final = "adapter_config.json"
#: Bytes of an adapter's configuration.
_MAX_ADAPTER: Final = 1024 * 1024
#: Ends of files that hold weights as a pickle, which can run code when it is read.
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def model_parts(base: BaseModel) -> tuple[str, str | None, list[Path]]:
    """Return where the model lies or its hub's name, its revision, and the adapters to merge into
    it, the innermost first.

    Raises TrainingRefused for a folder that holds neither a model nor an adapter, and where the
    base of an adapter was not fetched for the run.
    """
    if base.local_path is None:
        return base.model_id, base.revision or None, []
    adapters: list[Path] = []
    for folder in (base.local_path, *base.adapter_base_paths):
        if not (folder / _ADAPTER).is_file():
            if not (folder / "config.json").is_file():
                raise TrainingRefused(
                    f"the model {shown(base.model_id)} is not in the layout of transformers:"
                    f" {'its base' if adapters else 'it'} has no config.json"
                )
            return str(folder), None, adapters
        adapters.insert(0, folder)
    named = _named_base(adapters[0] / _ADAPTER)
    if "://" in named or named.startswith(("/", ".")) or not named:
        raise TrainingRefused(
            f"the model is a LoRA adapter on {shown(named)}, which was not fetched for this run;"
            " name the base by a scaiatlas:// or scaidrive:// URL in adapter_config.json"
            " (base_model_name_or_path), or train on a merged model"
        )
    return named, None, adapters


def _named_base(path: Path) -> str:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_ADAPTER))
        return str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise TrainingRefused(f"the adapter's {_ADAPTER} cannot be read: {error}") from None


def check_trust(base: BaseModel) -> None:
    """Raise TrainingRefused for what would run a model's code, unless the job trusts the model:
    weights that are pickled, and kernels that are fetched.

    A hub's model that is not here yet is loaded with `safe_weights`.
    """
    if base.trust_remote_code:
        return
    for name in ("attn_implementation", "experts_implementation"):
        if "/" in base.model_kwargs.get(name, ""):
            raise TrainingRefused(
                f"training_config.base_model.model_kwargs.{name}: fetches code from a hub; it needs"
                " training_config.base_model.trust_remote_code"
            )
    if base.local_path is None:
        return
    if base.model_kwargs.get("use_safetensors", "").lower() in ("false", "0"):
        raise TrainingRefused(
            "training_config.base_model.model_kwargs.use_safetensors: false reads pickled weights,"
            " which can run code; it needs training_config.base_model.trust_remote_code"
        )
    for folder in (base.local_path, *base.adapter_base_paths):
        refuse_pickles(folder, "the model", "set training_config.base_model.trust_remote_code")


def refuse_pickles(folder: Path, what: str, otherwise: str) -> None:
    """Raise TrainingRefused for a folder whose weights are pickled alone. `otherwise` is what can
    be done beside a conversion."""
    names = [each.name for each in _files(folder)]
    pickled = sorted(name for name in names if name.endswith(_PICKLES))
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise TrainingRefused(
            f"{what} has pickled weights alone ({shown(pickled[0])}), and a pickle can run code"
            " when it is read; convert them to safetensors (load the model where you trust it, and"
            f" save_pretrained), or {otherwise}"
        )


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [each for each in folder.iterdir() if each.is_file()]
    except OSError as error:
        raise TrainingRefused(f"the model cannot be read: {error.strerror}") from None


def safe_weights(base: BaseModel) -> Mapping[str, Any]:
    """Return the keywords by which transformers reads no pickle of a model that is not trusted."""
    return {} if base.trust_remote_code else {"use_safetensors": True}
