"""A MindCoordinator for one machine: real processes, a real queue, real checkpoints.

A process of its own. It shares the contract (`generated`) with the gateway, and nothing else.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

__all__ = ["BadConfig", "CoordinatorConfig", "serve"]


def __getattr__(name: str) -> Any:
    """What `config` exports, when it is asked for (PEP 562).

    The runner is a part of this package and is started for every run: it
    imports what it needs, and nothing of the coordinator's.
    """
    if name in ("BadConfig", "CoordinatorConfig"):
        from app.coordinator.settings import coordinator as config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def serve(config: "CoordinatorConfig", *, ready: Callable[[int], None] | None = None) -> None:
    """Run the coordinator until SIGTERM or SIGINT, or until the task is cancelled.

    Installs the handlers of both signals. `ready` is called with the port
    once requests are taken. On the way out running jobs are asked to save a
    checkpoint and leave, and go on at the next start; a second signal does
    not hurry them. Raises BadConfig if the data directory or the address
    cannot be used.
    """
    from app.coordinator.program import serve as run

    await run(config, ready=ready)
