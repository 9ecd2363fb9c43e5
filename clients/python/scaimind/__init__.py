"""ScaiMind's Python client.

>>> from scaimind import Client
>>> client = Client("https://gateway.example", key="sgk_...")   # or SCAIMIND_URL, SCAIMIND_API_KEY
>>> for line in client.jobs.logs(job_id):
...     print(line.message)
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scaimind.async_client import AsyncClient as AsyncClient
    from scaimind.client import Client as Client
    from scaimind.core.cursor import Cursor as Cursor
    from scaimind.core.entries import Gap as Gap
    from scaimind.core.entries import LogLine as LogLine
    from scaimind.core.wait import WaitTimeout as WaitTimeout
    from scaimind.errors import ApiError as ApiError
    from scaimind.errors import ConnectionFailed as ConnectionFailed
    from scaimind.errors import ScaiMindError as ScaiMindError

__version__ = "0.1.0"

#: Where each name is: imported when it is first used, so that the command starts at once.
_NAMES: Final = {
    "ApiError": "scaimind.errors",
    "AsyncClient": "scaimind.async_client",
    "Client": "scaimind.client",
    "ConnectionFailed": "scaimind.errors",
    "Cursor": "scaimind.core.cursor",
    "Gap": "scaimind.core.entries",
    "LogLine": "scaimind.core.entries",
    "ScaiMindError": "scaimind.errors",
    "WaitTimeout": "scaimind.core.wait",
}
__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ConnectionFailed",
    "Cursor",
    "Gap",
    "LogLine",
    "ScaiMindError",
    "WaitTimeout",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'scaimind' has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
