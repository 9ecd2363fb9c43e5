"""The local ScaiDrive: `scaidrive://<tenant>/<path>` is `<root>/<tenant>/<path>`.

What a caller names never leads out of its tenant's folder, by `..`, by an
absolute path or by a symbolic link. Errors speak of the URL, never of this
machine's paths.
"""

import re
from pathlib import Path
from typing import Final

SCHEME: Final = "scaidrive://"
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class BadUrl(Exception):
    """A URL that names nothing the tenant can reach; the message is for the caller."""


class Drive:
    """The drive as one tenant's jobs see it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def url(self, tenant_id: str, path: str) -> str:
        """The URL of a path below the tenant's folder."""
        return f"{SCHEME}{tenant_id}/{path}"

    def tenant_root(self, tenant_id: str) -> Path:
        """The tenant's folder; made if it is not there."""
        folder = self._root / tenant_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check(self, tenant_id: str, url: str) -> str:
        """The path that a URL names below the tenant's folder. Looks at its form only.

        Raises BadUrl.
        """
        if not url.startswith(SCHEME):
            raise BadUrl(f"{_shown(url)} is not of the form scaidrive://<tenant>/<path>")
        tenant, _, path = url.removeprefix(SCHEME).partition("/")
        if tenant != tenant_id:
            raise BadUrl(f"{_shown(url)} is not in your tenant's folder scaidrive://{tenant_id}/")
        parts = path.split("/")
        if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise BadUrl(f"{_shown(url)} is not a plain path below scaidrive://{tenant_id}/")
        return path

    def locate(self, tenant_id: str, url: str) -> Path:
        """Where a URL's file or directory is or would be. Raises BadUrl."""
        path = self.check(tenant_id, url)
        folder = self.tenant_root(tenant_id).resolve()
        try:
            target = (folder / path).resolve()
        except (OSError, RuntimeError):
            # Links that go in circles, or names that are too long.
            raise BadUrl(f"{_shown(url)} cannot be reached") from None
        if not target.is_relative_to(folder):
            raise BadUrl(f"{_shown(url)} leads out of your tenant's folder")
        return target

    def find(self, tenant_id: str, url: str) -> Path:
        """Where a URL's file or directory is. Raises BadUrl if it is not there."""
        target = self.locate(tenant_id, url)
        try:
            target.stat()
        except FileNotFoundError:
            raise BadUrl(f"{_shown(url)} does not exist") from None
        except OSError as error:
            raise BadUrl(f"{_shown(url)} cannot be reached: {error.strerror}") from None
        return target


def _shown(url: str) -> str:
    return url if len(url) <= 512 and url.isprintable() else repr(url[:512])
