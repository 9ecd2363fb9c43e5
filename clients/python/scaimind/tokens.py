"""What a client authenticates with."""

import threading
from collections.abc import Callable


class Tokens:
    """An API key, or tokens that a callable brings.

    `renew` is called after a 401: the callable brings the next token. An API
    key cannot be renewed. Nothing of a token is ever in a repr or a message.
    """

    def __init__(self, key: str = "", *, provider: Callable[[], str] | None = None) -> None:
        self._provider = provider
        self._token = key
        self._lock = threading.Lock()

    def header(self) -> dict[str, str]:
        """Return the header of a request; none without a token."""
        with self._lock:
            if not self._token and self._provider is not None:
                self._token = self._provider()
            return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def renew(self) -> bool:
        """Bring another token; return whether there is one."""
        if self._provider is None:
            return False
        with self._lock:
            before, self._token = self._token, self._provider()
            return self._token != before
