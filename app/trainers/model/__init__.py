"""The base model and its tokenizer: a folder in the layout of transformers, or a hub's name."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from ..errors import TrainingRefused, did_you_mean, is_out_of_memory, listed, shown
from ..job import BaseModel, Data
from .merging import merged
from .parts import model_parts, safe_weights

log: Final = logging.getLogger(__name__)

_DTYPES: Final[Mapping[str, str]] = {
    "auto": "auto",
    "float32": "float32",
    "fp32": "float32",
    "float": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "half": "float16",
}
#: What `base_model.model_kwargs` may set of the model and of its configuration. Others could
#: make the loader run code or leave the job's model.
_MODEL_KWARGS: Final = frozenset(
    {
        "attention_dropout",
        "attn_implementation",
        "attn_pdrop",
        "embd_pdrop",
        "experts_implementation",
        "hidden_dropout",
        "ignore_mismatched_sizes",
        "low_cpu_mem_usage",
        "max_position_embeddings",
        "output_router_logits",
        "resid_pdrop",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "router_aux_loss_coef",
        "sliding_window",
        "subfolder",
        "tie_word_embeddings",
        "use_cache",
        "use_safetensors",
        "variant",
    }
)
_TOKENIZER_KWARGS: Final = frozenset(
    {
        "add_prefix_space",
        "bos_token",
        "clean_up_tokenization_spaces",
        "eos_token",
        "legacy",
        "model_max_length",
        "pad_token",
        "padding_side",
        "split_special_tokens",
        "subfolder",
        "truncation_side",
        "unk_token",
        "use_fast",
    }
)
#: A length that tokenizers have where none was set.
_UNBOUNDED: Final = 10**9
#: Tokens where neither the job nor the model says.
_DEFAULT_LENGTH: Final = 1024

CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def load_tokenizer(base: BaseModel, data: Data) -> Any:
    """Return the tokenizer as the job wants it. Raises TrainingRefused."""
    from transformers import AutoTokenizer

    where, revision = _tokenizer_place(base)
    options = _keywords(
        data.preprocess.tokenizer_kwargs,
        _TOKENIZER_KWARGS,
        "data_config.preprocess.tokenizer_kwargs",
    )
    with _loading("the tokenizer", where):
        tokenizer = AutoTokenizer.from_pretrained(
            where, revision=revision, trust_remote_code=base.trust_remote_code, **options
        )
    if template := data.preprocess.chat_template:
        tokenizer.chat_template = _chat_template(template)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise TrainingRefused(
                "the tokenizer has neither a padding nor an end token; set pad_token in"
                " data_config.preprocess.tokenizer_kwargs"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_place(base: BaseModel) -> tuple[str, str | None]:
    if base.tokenizer_path is not None:
        return str(base.tokenizer_path), None
    if base.tokenizer_id and base.tokenizer_id != base.model_id:
        if "://" in base.tokenizer_id:
            raise TrainingRefused(
                f"tokenizer_id: {shown(base.tokenizer_id)} was not fetched for this run; put the"
                " tokenizer into the model's folder"
            )
        return base.tokenizer_id, None
    if base.local_path is None:
        return base.model_id, base.revision or None
    folders = (base.local_path, *base.adapter_base_paths)
    there = (
        folder for folder in folders if any((folder / name).is_file() for name in _TOKENIZER_FILES)
    )
    if (found := next(there, None)) is None:
        raise TrainingRefused(
            f"the model {shown(base.model_id)} has no tokenizer: none of"
            f" {', '.join(_TOKENIZER_FILES)} is in its folder; put it there, or name another one by"
            " training_config.base_model.tokenizer_id"
        )
    return str(found), None


_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def _chat_template(template: str) -> str:
    if template.lower() == "chatml":
        return CHATML
    if "{{" not in template and "{%" not in template:
        raise TrainingRefused(
            f"data_config.preprocess.chat_template: {shown(template)} is neither a Jinja template"
            f" nor a name that is known{did_you_mean(template, ('chatml',))}; use chatml or a"
            " template"
        )
    return template


def max_length(base: BaseModel, data: Data, tokenizer: Any, *, asked: int | None = None) -> int:
    """Return how many tokens a record may have: the job's limit, else the model's own.

    `asked` is the hyperparameter of that name. Raises TrainingRefused where the job asks for more
    than the model's positions.
    """
    config = load_config(base)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        positions = None
    if wanted := data.max_seq_length or asked:
        if positions and wanted > positions and "rope_scaling" not in base.model_kwargs:
            raise TrainingRefused(
                f"data_config.max_seq_length: {wanted} is more than the model's {positions}"
                " positions"
            )
        return wanted
    own = min(tokenizer.model_max_length or _UNBOUNDED, positions or _UNBOUNDED)
    return int(own) if 0 < own < _UNBOUNDED else _DEFAULT_LENGTH


def load_config(base: BaseModel) -> Any:
    """Return the configuration of the model, of an adapter that of its base. Raises
    TrainingRefused."""
    from transformers import AutoConfig

    where, revision, _ = model_parts(base)
    with _loading("the model", where):
        return AutoConfig.from_pretrained(
            where, revision=revision, trust_remote_code=base.trust_remote_code
        )


def load_model(
    base: BaseModel,
    *,
    default_dtype: str,
    tokenizer: Any = None,
    auto_class: Any = None,
    **options: Any,
) -> Any:
    """Return the model, of an adapter merged into its base.

    `default_dtype` is used where the job has none; `auto_class` is AutoModelForCausalLM if it
    is None. With a `tokenizer` that has more tokens than the model, rows of embeddings are
    added. Raises TrainingRefused.
    """
    import torch
    from transformers import AutoModelForCausalLM

    where, revision, adapters = model_parts(base)
    kwargs = {
        **_keywords(base.model_kwargs, _MODEL_KWARGS, "training_config.base_model.model_kwargs"),
        **safe_weights(base),
    }
    with _loading("the model", where):
        model, found = (auto_class or AutoModelForCausalLM).from_pretrained(
            where,
            revision=revision,
            trust_remote_code=base.trust_remote_code,
            dtype=_dtype(base.dtype or default_dtype, torch),
            output_loading_info=True,
            **kwargs,
            **options,
        )
    _check_loaded(model, found)
    for adapter in adapters:
        with _loading("the adapter", str(adapter)):
            model = merged(model, adapter)
    if tokenizer is not None and len(tokenizer) > model.get_input_embeddings().num_embeddings:
        log.info("The tokenizer has more tokens than the model: rows of embeddings are added.")
        model.resize_token_embeddings(len(tokenizer))
    return model


def _check_loaded(model: Any, found: Mapping[str, Any]) -> None:
    """Raise TrainingRefused where the weights are of another model than the configuration.

    transformers begins with random numbers for what is missing, and only warns of it.
    """
    if any(hasattr(each, "ds_id") for each in model.parameters()):
        # ZeRO-3 has divided them, and what was missing is not known.
        return
    missing, left_over = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    count = len(model.state_dict())
    some = listed((missing or left_over)[:3])
    if 2 * len(missing) > count or len(left_over) > max(count - len(missing), 1):
        raise TrainingRefused(
            f"the model's weights do not fit its config.json: {len(missing)} of its {count} tensors"
            f" are missing, and {len(left_over)} belong to none of it"
            f" ({some}); use the config.json that belongs to them"
        )
    if missing:
        log.warning(
            "The model's weights lack %s: training begins with random numbers there.",
            listed(missing),
        )


@contextmanager
def _loading(what: str, where: str) -> Iterator[None]:
    """Raise TrainingRefused for what a library cannot load; a lack of memory passes."""
    try:
        yield
    except TrainingRefused:
        raise
    except Exception as error:  # of many readers, each with exceptions of its own
        if is_out_of_memory(error):
            raise
        raise TrainingRefused(_cannot_load(what, where, error)) from error


def _cannot_load(what: str, where: str, error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{what} has code of its own, without which it cannot be loaded; set"
            " training_config.base_model.trust_remote_code to have the job run it"
        )
    said = " ".join(str(error).split())[:400]
    return (
        f"{what} {shown(where)} cannot be loaded ({said}). A name of a hub needs the network or the"
        " machine's cache; a folder has the layout of transformers"
        if not where.startswith("/")
        else f"{what} cannot be loaded ({said})"
    )


def _dtype(name: str, torch: Any) -> Any:
    known = _DTYPES.get(name.lower().removeprefix("torch."))
    if known is None:
        raise TrainingRefused(
            f"training_config.base_model.dtype: {shown(name)} is not known"
            f"{did_you_mean(name, _DTYPES)}; use float32, bfloat16, float16 or auto"
        )
    return known if known == "auto" else getattr(torch, known)


def _keywords(given: Mapping[str, str], allowed: frozenset[str], where: str) -> dict[str, Any]:
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise TrainingRefused(
            f"{where}: {listed(unknown)} cannot be set{did_you_mean(unknown[0], allowed)};"
            f" use one of {', '.join(sorted(allowed))}"
        )
    return {name: _value(text) for name, text in given.items()}


def _value(text: str) -> Any:
    """Return a number, a truth value or an object where the text is one in JSON, else the text."""
    try:
        return json.loads(text.lower() if text in ("True", "False", "None") else text)
    except (ValueError, RecursionError):
        return text
