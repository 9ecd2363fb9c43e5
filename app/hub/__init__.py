"""Fan-out: one upstream stream per job, any number of watchers, nothing lost silently.

Not here: HTTP, gRPC, JSON. The room has more modules than the others because the core
without I/O is kept in small pieces apart from what drives it.
"""

from app.hub.close_reasons import CloseReason
from app.hub.hub import Hub
from app.hub.upstream import Position, Upstream

__all__ = ["CloseReason", "Hub", "Position", "Upstream"]
