"""The engine that the settings name."""

from app.coordinator.engines.engine import Engine
from app.coordinator.engines.local.opening import open_local_engine
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.settings.coordinator import CoordinatorConfig


async def open_engine(
    config: CoordinatorConfig, *, readable: tuple[str, ...], leadership: Leadership
) -> Engine:
    """Return the engine, for the caller to close.

    `readable` is what every process of a run on this machine may read. Raises
    BadConfig if it cannot be opened as the settings demand.
    """
    if config.engine == "ray":
        # Not for one machine, whose coordinator would hold it all its life.
        from app.coordinator.engines.remote.opening import open_ray_engine

        return await open_ray_engine(config, readable=readable, leadership=leadership)
    return await open_local_engine(config, readable=readable)
