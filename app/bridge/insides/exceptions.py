"""Which exceptions' names in a text are those of the coordinator, and which are the job's.

A job's script fails with exceptions, too, and its owner has to read them.
"""

import re
from typing import Final

#: An exception's class at the beginning of what it says, with its module.
EXCEPTION: Final = re.compile(
    r"(?<![\w.])(?P<module>(?:[A-Za-z_]\w{0,60}\.){0,8})"
    r"(?P<name>[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Timeout|Failure|Exhausted)|StopIteration)"
    r"\b(?=\s?[:(\[{]|\s*$|[)\]}'\"])"
)

#: Libraries that a training process uses, and that a coordinator has no use for.
_LIBRARIES: Final = frozenset(
    {
        *("torch", "torchvision", "torchaudio", "transformers", "datasets", "huggingface_hub"),
        *("safetensors", "tokenizers", "accelerate", "peft", "trl", "deepspeed", "diffusers"),
        *("json", "yaml", "csv", "pandas", "numpy", "pyarrow", "PIL", "sklearn", "scipy", "jinja2"),
        *("tensorflow", "keras", "jax", "flax", "lightning", "pytorch_lightning", "xformers"),
        *("bitsandbytes", "flash_attn", "vllm", "triton", "nltk", "sentencepiece", "evaluate"),
        *("wandb", "mlflow", "ray", "megatron", "apex", "nemo", "omegaconf", "hydra", "soundfile"),
        *("subprocess", "zipfile", "tarfile", "gzip", "pickle", "tiktoken", "unsloth", "axolotl"),
    }
)
#: Exceptions of scripts, data and GPUs.
_OF_JOBS: Final = frozenset(
    {
        *("OutOfMemoryError", "ModuleNotFoundError", "ImportError", "SyntaxError", "NameError"),
        *("IndentationError", "TabError", "UnicodeDecodeError", "UnicodeEncodeError"),
        *("JSONDecodeError", "ChildFailedError", "GatedRepoError", "RepositoryNotFoundError"),
        *("EntryNotFoundError", "RevisionNotFoundError", "LocalEntryNotFoundError"),
        *("HFValidationError", "SafetensorError", "CalledProcessError", "FileNotFoundError"),
        *("ParserError", "ScannerError", "EmptyDataError", "DatasetGenerationError", "EOFError"),
        *("DatasetNotFoundError", "DataFilesNotFoundError", "FloatingPointError", "LinAlgError"),
        *("ZeroDivisionError", "DistBackendError", "AcceleratorError", "CompilationError"),
        *("KeyboardInterrupt", "UnpicklingError", "BadZipFileError", "UnidentifiedImageError"),
        *("SignalException", "TemplateError", "ExpatError", "CUDAError", "MemoryError"),
    }
)
#: What a sentence says of a job before it names the job's exception.
_BEFORE: Final = re.compile(
    r"(?i)\b(?:your \w+|(?:the |custom |training |user )?script|\w+\.(?:py|sh|ipynb)|the run"
    r"|rank \d+|local_rank|training process|worker \d+|exit(?:ed|code)?\b|status \d+|line \d+"
    r"|step \d+|epoch \d+)"
)
#: What a training process's exception is about.
_ABOUT: Final = re.compile(
    r"(?i)\b(?:cuda|cudnn|cublas\w*|nccl\w*|hip|rocm|xla|tpu|mps|gpus?|tensors?|shapes?|dtypes?"
    r"|mat1|size mismatch|state_?dict|checkpoints?|tokeni[sz]ers?|data ?sets?|batch(?:_?size)?"
    r"|gradients?|grads?|loss|models?|optimi[sz]ers?|weights?|pad(?:ding)?|scalar type|devices?"
    r"|learning.rate|lora|attention|vocab\w*|float16|bfloat16|bf16|fp16|fp8|precision|layers?"
    r"|embeddings?|logits|labels?"
    r"|columns?|splits?|features?|samples?|epochs?|steps?|huggingface\w*|repo_id|configs?|hyper\w+"
    r"|process group|init_method|world.size|deepspeed|zero stage|quanti\w+|parameters?|csv|jsonl?"
    r"|parquet"
    r"|arrow|num_\w+|training|max_length|seq\w*|input_ids|prompt|images?|audio|encod\w+|decod\w+)\b"
)


def is_programs_exception(match: re.Match[str], *, mentioned: bool = False) -> bool:
    """Whether an exception is the coordinator's own, whatever it says.

    `mentioned` is set if it need not begin what it says.
    """
    text, module, name = match.string, match["module"], match["name"]
    if module:
        return module.partition(".")[0] not in _LIBRARIES
    if name in _OF_JOBS or _BEFORE.search(text, max(0, match.start() - 120), match.start()):
        return False
    if mentioned:
        return True
    return _ABOUT.search(text, match.end(), match.end() + 240) is None


def is_programs_mistake(match: re.Match[str]) -> bool:
    """Whether what Python says of a mistake is said of the coordinator."""
    text, start, end = match.string, match.start(), match.end()
    return not (
        _BEFORE.search(text, max(0, start - 120), start) or _ABOUT.search(text, start, end + 120)
    )
