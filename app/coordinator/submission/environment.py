"""The variables that a submission may give its training process."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from app.coordinator.errors import InvalidArgument, all_problems
from app.credentials import MASK
from app.shortening import quoted

_WHERE: Final = "training_config.environment"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables of a job.
MAX_VARIABLES: Final = 256
#: Characters of a variable's name.
MAX_NAME: Final = 256
#: Bytes of all names and values together. Each listed job is told with them.
MAX_BYTES: Final = 64 * 1024

#: Whoever sets one of these would take what the job was not given, or not find what it was.
_ALLOCATION: Final = frozenset(
    {
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MPS_PIPE_DIRECTORY"),
        *("NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        *("GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"),
        *("ASCEND_RT_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"),
    }
)
_DIRECTORIES: Final = frozenset({"HOME", "TMPDIR"})
_RANKS: Final = frozenset(
    {
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT"),
    }
)


def reason_reserved(name: str) -> str:
    """Why a variable is the coordinator's to set; empty if it is the job's."""
    if name in _ALLOCATION:
        return "it depends on the job's devices (resource_config.gpu_count)"
    if name in _DIRECTORIES:
        return "it is a directory of the job"
    if name in _RANKS:
        return "it depends on framework.distributed.world_size and resource_config.node_count"
    if name.startswith("SCAIMIND_"):
        return "SCAIMIND_* variables describe the job"
    return ""


def own_variables(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Of a stored job's variables those that it is given, and why each other one is not.

    Earlier versions accepted every name.
    """
    reserved = {name: reason for name in sorted(environment) if (reason := reason_reserved(name))}
    return {name: value for name, value in environment.items() if name not in reserved}, reserved


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise InvalidArgument, with all that is wrong, unless a process can be given these
    variables, with their values."""
    if len(environment) > MAX_VARIABLES:
        raise InvalidArgument(_WHERE, f"must have at most {MAX_VARIABLES} variables")
    with all_problems() as problems:
        for name, value in environment.items():
            for problem in _problems_of(name, value):
                problems.add(_WHERE, problem)
        size = sum(len(name) + len(value.encode()) for name, value in environment.items())
        if size > MAX_BYTES:
            problems.add(
                _WHERE,
                f"names and values have {size} bytes together; the limit is {MAX_BYTES}."
                " Put large values into a file on the drive",
            )


def _problems_of(name: str, value: str) -> Iterator[str]:
    shown = quoted(name)
    if len(name) > MAX_NAME:
        yield f"{shown} has more than {MAX_NAME} characters"
    elif not _NAME.fullmatch(name):
        yield f"{shown} is not the name of a variable"
    elif reason := reason_reserved(name):
        yield f"{shown} is set by the coordinator: {reason}; remove it"
    if "\0" in value:
        yield f"the value of {shown} has a NUL character"
    if value == MASK:
        yield (
            f"the value of {shown} is {MASK}, the placeholder of a credential that is not shown;"
            " give the credential itself, or remove the variable"
        )
