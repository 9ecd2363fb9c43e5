"""A MindCoordinator for one machine: real processes, a real queue, real checkpoints.

A process of its own. It shares the contract (`generated`) with the gateway, and nothing else.
"""

from collections.abc import Callable

from .config import BadConfig, CoordinatorConfig

__all__ = ["BadConfig", "CoordinatorConfig", "serve"]


async def serve(config: CoordinatorConfig, *, ready: Callable[[int], None] | None = None) -> None:
    """Run the coordinator until SIGTERM or SIGINT, or until the task is cancelled.

    Installs the handlers of both signals. `ready` is called with the port
    once requests are taken. On the way out running jobs are asked to save a
    checkpoint and leave, and go on at the next start; a second signal does
    not hurry them. Raises BadConfig if the data directory or the address
    cannot be used.
    """
    # The runner is a part of this package, and must start fast: no gRPC for it.
    from .server import serve as run

    await run(config, ready=ready)
