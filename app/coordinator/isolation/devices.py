"""The device files of GPUs, so that a job finds those that it was given and no others."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

#: What every program needs that uses a GPU of NVIDIA's, and the network between GPUs.
_SHARED: Final = (
    *("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"),
    *("/dev/nvidia-caps", "/dev/infiniband"),
)


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU of this machine."""

    #: Its name for CUDA wherever other GPUs cannot be seen; its index counts those that can.
    uuid: str
    file: str


def find_gpu_devices() -> tuple[GpuDevice, ...]:
    """This machine's GPUs by index, as NVML tells of them; none where it does not."""
    try:
        library: Any = import_module("pynvml")
    except ImportError:
        return ()
    try:
        library.nvmlInit()
        found = []
        for index in range(library.nvmlDeviceGetCount()):
            gpu = library.nvmlDeviceGetHandleByIndex(index)
            minor = library.nvmlDeviceGetMinorNumber(gpu)
            found.append(GpuDevice(library.nvmlDeviceGetUUID(gpu), f"/dev/nvidia{minor}"))
    except (library.NVMLError, AttributeError):
        return ()
    return tuple(found)


def device_files(gpus: tuple[GpuDevice, ...], indices: list[int]) -> list[str]:
    """The files of the GPUs with these indices; none for none."""
    if not indices:
        return []
    own = [gpus[index].file if index < len(gpus) else f"/dev/nvidia{index}" for index in indices]
    return [*_SHARED, *own]
