"""This machine's GPUs, as NVIDIA's driver tells of them through NVML.

Where there is no driver, or no nvidia-ml-py, there are none.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Self

from app.coordinator.cluster.node_specs import GpuSpec
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot

#: Seconds between two samples of what GPUs are used.
INTERVAL: Final = 2.0
#: Seconds after which a sample says nothing any more: the driver hangs.
_STALE: Final = 5 * INTERVAL


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What of a GPU is used; None where it cannot be measured."""

    #: Share of time busy, 0.0 to 1.0.
    utilization: float | None
    memory_bytes: int | None


class Nvml:
    """The driver. GPUs are told by their index, in the order of the PCI bus."""

    def __init__(self, library: Any) -> None:
        """`library` is the module `pynvml`, initialised."""
        self._library = library

    @classmethod
    def open(cls) -> Self | None:
        """The driver of this machine; None where there is none."""
        try:
            library = import_module("pynvml")
        except ImportError:
            return None
        try:
            library.nvmlInit()
        except library.NVMLError:
            return None
        return cls(library)

    def specs(self) -> tuple[GpuSpec, ...]:
        """The GPUs; none if the driver fails to tell."""
        library = self._library
        found = []
        try:
            for index in range(library.nvmlDeviceGetCount()):
                gpu = library.nvmlDeviceGetHandleByIndex(index)
                name = library.nvmlDeviceGetName(gpu)
                label = name.removeprefix("NVIDIA ").replace(" ", "-")
                found.append(GpuSpec(label, library.nvmlDeviceGetMemoryInfo(gpu).total))
        except library.NVMLError:
            return ()
        return tuple(found)

    def use(self, index: int) -> GpuUse:
        """What of a GPU is used now."""
        library = self._library

        def ask(question: Callable[[Any], Any]) -> Any:
            try:
                return question(library.nvmlDeviceGetHandleByIndex(index))
            except library.NVMLError:
                return None

        rates = ask(library.nvmlDeviceGetUtilizationRates)
        memory = ask(library.nvmlDeviceGetMemoryInfo)
        return GpuUse(
            utilization=None if rates is None else rates.gpu / 100,
            memory_bytes=None if memory is None else memory.used,
        )


class GpuMeter:
    """Samples some GPUs every INTERVAL seconds, in a thread of its own: a driver may hang.

    Without GPUs it does nothing.
    """

    def __init__(self, indices: Collection[int], *, nvml: Callable[[], Nvml | None] = Nvml.open):
        self._indices = tuple(indices)
        self._nvml = nvml
        self._sample: tuple[float, Mapping[int, GpuUse]] = (0.0, {})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="GPU meter", daemon=True)

    def start(self) -> None:
        """Begin; after whatever is to be forked."""
        if self._indices:
            self._thread.start()

    def close(self) -> None:
        """Stop, without waiting for a driver that hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(INTERVAL)

    def latest(self) -> Mapping[int, GpuUse]:
        """The newest sample by index; empty if there is none or it is old."""
        taken, sample = self._sample
        return sample if time.monotonic() - taken < _STALE else {}

    def fill_in(self, snapshot: MetricsSnapshot) -> None:
        """Add what is known to a snapshot that does not say it itself.

        The utilization is the mean of the GPUs, the memory their sum.
        """
        uses = self.latest().values()
        busy = [use.utilization for use in uses if use.utilization is not None]
        memory = [use.memory_bytes for use in uses if use.memory_bytes is not None]
        if busy and not snapshot.HasField("gpu_utilization"):
            snapshot.gpu_utilization = sum(busy) / len(busy)
        if memory and not snapshot.HasField("gpu_memory_bytes"):
            snapshot.gpu_memory_bytes = sum(memory)

    def _run(self) -> None:
        nvml = self._nvml()
        if nvml is None:
            return
        while not self._stop.is_set():
            self._sample = (time.monotonic(), {index: nvml.use(index) for index in self._indices})
            self._stop.wait(INTERVAL)
