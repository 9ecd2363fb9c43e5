"""The variables that the libraries of the trainers' environment read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Nothing is fetched, and nobody is told anything.
OFFLINE: Final[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
#: What says how this machine reaches a hub of models; the coordinator's is the jobs', too.
_HUB: Final = ("HF_HUB_OFFLINE", "HF_ENDPOINT")
#: Where libraries keep what they made or fetched, below the home directory of the job.
_CACHES: Final[Mapping[str, str]] = {
    "HF_HOME": "huggingface",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
}


def default_variables(
    *, home: Path, cores: int, ranks: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what a job's process is given unless its submission sets it.

    `ranks` share `cores`; 0 stands for a job that asked for none, and has what others leave.
    `environ` is the coordinator's environment.
    """
    # Threads that wait for one another on busy cores are slower than one by far.
    shared = cores or len(os.sched_getaffinity(0)) // 2
    return {
        "OMP_NUM_THREADS": str(max(shared // ranks, 1)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **{name: str(home / ".cache" / folder) for name, folder in _CACHES.items()},
        **{name: environ[name] for name in _HUB if environ.get(name)},
    }
