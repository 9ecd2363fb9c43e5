"""uv: where it is, and how it is told to install."""

import importlib
import importlib.util
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Seconds for which nothing may come over a connection.
_HTTP_TIMEOUT: Final = "60"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Where packages come from."""

    #: URL of a package index (PEP 503).
    index: str
    #: A directory of wheels that is used in the place of every index.
    wheels: Path | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """As uv takes it."""
        if self.wheels is not None:
            return ("--no-index", "--find-links", str(self.wheels))
        return ("--default-index", self.index)


def find_uv() -> Path | None:
    """Return the program that came with the package `uv`; None if that is not installed."""
    if importlib.util.find_spec("uv") is None:
        return None
    try:
        return Path(importlib.import_module("uv").find_uv_bin())
    except FileNotFoundError:
        return None


def install_command(
    uv: Path,
    *,
    python: Path,
    requirements: str,
    constraints: Path,
    source: PackageSource,
    allow_source_builds: bool,
) -> tuple[str, ...]:
    """Return the command that installs what a file names into a virtual environment."""
    return (
        *(str(uv), "pip", "install", "--python", str(python), "--no-python-downloads"),
        # A path, whatever it is called: uv takes `-` for stdin, and `https:` for a URL.
        *("--requirements", f"./{requirements}", "--constraints", str(constraints)),
        *source.arguments,
        *(() if allow_source_builds else ("--no-build",)),
        # Never hard-linked: the cache and the environment have different owners.
        *("--link-mode", "copy"),
        # Nobody can write it later.
        "--compile-bytecode",
        *("--color", "never", "--no-progress"),
    )


def environment(cache: Path) -> dict[str, str]:
    """Return the variables of the program: nothing of the job's, nothing of this process's."""
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": str(cache),
        # The project's own settings are for other commands, and may name anything.
        "UV_NO_CONFIG": "1",
        "UV_KEYRING_PROVIDER": "disabled",
        "UV_HTTP_TIMEOUT": _HTTP_TIMEOUT,
    }
    certificates = ssl.get_default_verify_paths().cafile
    if certificates is not None and os.path.isfile(certificates):
        # Those of the system, an organisation's own among them.
        variables["SSL_CERT_FILE"] = os.path.realpath(certificates)
    return variables
