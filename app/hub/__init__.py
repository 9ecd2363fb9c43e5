"""Fan-out: one upstream stream per job, any number of watchers, nothing lost silently."""

from app.hub.close_reasons import CloseReason
from app.hub.hub import Hub
from app.hub.upstream import Position, Upstream

__all__ = ["CloseReason", "Hub", "Position", "Upstream"]
