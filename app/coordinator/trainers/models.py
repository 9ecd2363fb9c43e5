"""What a job of the trainers names besides its data: models, tokenizers, the base of an adapter.

A URL of ScaiDrive or ScaiAtlas is fetched as data are; any other name is a hub's. A LoRA adapter
is a folder that says in `adapter_config.json` which model it belongs to.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from app.coordinator.data.drive import ATLAS_SCHEME, SCHEME, BadUrl, Drive, shown
from app.coordinator.identity.access import Access
from app.coordinator.storage.untrusted_json import BadJson, parse
from generated.mindcoordinator.v1.jobs_pb2 import FrameworkType, SubmitJobRequest, TrainingConfig

#: Values of `output_config.export_format` by which the trainers write what is exported as it is.
EXPORTS: Final = ("safetensors", "merged", "adapter")
#: Of scripts, and of jobs that train nothing.
_NOT_TRAINERS: Final = (
    FrameworkType.FRAMEWORK_TYPE_UNSPECIFIED,
    FrameworkType.FRAMEWORK_TYPE_CUSTOM,
)
ADAPTER: Final = "adapter_config.json"
CONFIG: Final = "config.json"
#: Bytes of either, and characters of the name in the first.
MAX_ADAPTER: Final = 1024 * 1024
_MAX_NAME: Final = 4096
#: Adapters that may stand on one another.
MAX_ADAPTERS: Final = 8


def uses_trainers(training: TrainingConfig) -> bool:
    """Whether a training is carried out by the trainers, and not by a script of its own."""
    return training.framework.type not in _NOT_TRAINERS


def is_url(name: str) -> bool:
    """Whether a model's name says where on this deployment it is."""
    return name.startswith((SCHEME, ATLAS_SCHEME, "/"))


def named_urls(request: SubmitJobRequest) -> Iterator[tuple[str, str]]:
    """Yield the fields that may name a model or a tokenizer and do so by its URL, but for the
    base model's own."""
    training = request.training_config
    named = {
        "training_config.base_model.tokenizer_id": training.base_model.tokenizer_id,
        "data_config.preprocess.tokenizer_id": request.data_config.preprocess.tokenizer_id,
    }
    for where, name in named.items():
        if is_url(name):
            yield where, name
    for name, value in training.hyperparameters.items():
        if value.startswith((SCHEME, ATLAS_SCHEME)):
            yield f"training_config.hyperparameters.{name}", value


def adapter_base(drive: Drive, access: Access, url: str) -> str:
    """Return the model that an adapter belongs to; empty where `url` is no folder of one.

    Raises BadUrl for an adapter that does not say it, OSError.
    """
    raw = drive.content(access, url, ADAPTER, limit=MAX_ADAPTER + 1)
    return "" if raw is None else base_in(raw, f"{ADAPTER} in {shown(url)}")


def adapter_bases(drive: Drive, access: Access, url: str) -> Iterator[str]:
    """Yield what the model at `url` is an adapter on, what that is an adapter on, and so on.

    The nearest comes first; a hub's name is the last. Nothing is yielded for a model that is no
    adapter. Raises BadUrl for an adapter that does not say its base, or that leads back to
    itself, OSError.
    """
    chain = [url]
    while is_url(url) and (base := adapter_base(drive, access, url)):
        check_chain(chain, base)
        chain.append(base)
        yield base
        url = base


def check_chain(chain: Sequence[str], base: str) -> None:
    """Raise BadUrl unless `base` may come after the adapters in `chain`."""
    if base in chain:
        raise BadUrl(f"the adapter {shown(base)} is on itself (base_model_name_or_path)")
    if len(chain) > MAX_ADAPTERS:
        raise BadUrl(
            f"{shown(chain[0])} is a chain of more than {MAX_ADAPTERS} adapters; export one of them"
            " merged, and name that as the base of the next"
        )


def model_type(drive: Drive, access: Access, url: str) -> str:
    """Return what a model in the layout of transformers says that it is; empty where it does not
    say it. Raises BadUrl, OSError."""
    raw = drive.content(access, url, CONFIG, limit=MAX_ADAPTER + 1)
    if raw is None:
        return ""
    try:
        value = parse(raw) if len(raw) <= MAX_ADAPTER else None
    except BadJson:
        return ""
    named = value.get("model_type") if isinstance(value, dict) else None
    return named if isinstance(named, str) else ""


def base_in(raw: bytes, path: str) -> str:
    """Return the base that an adapter's configuration names. Raises BadUrl."""
    if len(raw) > MAX_ADAPTER:
        raise BadUrl(f"{path} has more than {MAX_ADAPTER} bytes")
    try:
        value = parse(raw)
    except BadJson as error:
        raise BadUrl(f"{path} cannot be read: {error}") from None
    base = value.get("base_model_name_or_path") if isinstance(value, dict) else None
    if not isinstance(base, str) or not base or len(base) > _MAX_NAME:
        raise BadUrl(f"{path} does not name the base of the adapter (base_model_name_or_path)")
    return base
