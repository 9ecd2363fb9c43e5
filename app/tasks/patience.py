"""How long somebody waits for what cannot be ended, such as a thread that a server keeps."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.tasks.ending import end_all

_T = TypeVar("_T")


class PatienceOver(Exception):
    """Nobody waits any more. What was waited for may go on."""


class Patience:
    """Without end until it is limited. On one event loop; close it."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self._over.is_set()

    def limit(self, seconds: float) -> None:
        """Have it end some seconds from now. The first call holds, until it is lifted."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._over.set)

    def lift(self) -> None:
        """Have it without end again, unless it is over."""
        if self._timer is not None and not self.is_over:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def wait_for(self, work: Coroutine[Any, Any, _T], *, name: str) -> _T:
        """Await some work as a task of this name, which is cancelled when it is over, and not begun
        behind that. Raises PatienceOver, and what the work does."""
        if self.is_over:
            work.close()
            raise PatienceOver
        doing = asyncio.create_task(work, name=name)
        over = asyncio.create_task(self._over.wait(), name=f"patience with {name}")
        try:
            await asyncio.wait([doing, over], return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise PatienceOver
        finally:
            over.cancel()
            await end_all([doing], expected=Exception)  # it is raised here, or nobody asks
