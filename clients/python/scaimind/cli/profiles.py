"""Where the gateway is, and the key for it: the environment, or a file of profiles.

The file is `~/.config/scaimind/config.toml` (XDG_CONFIG_HOME), mode 0600:

    default = "work"

    [profiles.work]
    url = "https://gateway.example"
    api_key = "sgk_..."
"""

import fcntl
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaimind.cli.main import CommandError


@dataclass(frozen=True, slots=True)
class Profile:
    """A gateway and what to authenticate with."""

    name: str
    url: str
    api_key: str = field(repr=False)


def config_file() -> Path:
    """Return the path of the file of profiles. Raises CommandError where there is no home."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        # The specification ignores what is not absolute.
        folder = Path(home) if home.startswith("/") else Path.home() / ".config"
    except RuntimeError as error:
        raise CommandError("There is no home directory; set XDG_CONFIG_HOME.") from error
    return folder / "scaimind" / "config.toml"


def load() -> dict[str, Any]:
    """Return what the file has; nothing where there is none. Raises CommandError if it is wrong."""
    path = config_file()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be used: {error}") from error


def chosen(name: str | None) -> Profile:
    """Return the profile of a command: `--profile`, else the environment, else the default one.

    Raises CommandError if there is none, with what to do.
    """
    url, key = os.environ.get("SCAIMIND_URL", ""), os.environ.get("SCAIMIND_API_KEY", "")
    if name is None and url:
        return Profile("", url, key)
    config = load()
    profiles = config.get("profiles", {})
    if not isinstance(profiles, dict):
        raise CommandError(f"{config_file()}: profiles must be a table.")
    wanted = name or os.environ.get("SCAIMIND_PROFILE") or config.get("default")
    if wanted is None and len(profiles) == 1:
        wanted = next(iter(profiles))
    if wanted is None:
        raise CommandError(
            "No gateway is set: run 'scaimind login https://gateway.example', or set SCAIMIND_URL"
            " and SCAIMIND_API_KEY."
        )
    found = profiles.get(wanted)
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        known = ", ".join(sorted(profiles)) or "none"
        raise CommandError(f"There is no profile {wanted!r}; known: {known}.")
    # Not the other way round: a key of the environment may be another gateway's.
    return Profile(wanted, found["url"], str(found.get("api_key", "")) or key)


def store(profile: Profile, *, default: bool) -> Path:
    """Write a profile; comments and other profiles stay. Returns the file.

    Raises CommandError if the file is not TOML or cannot be written.
    """
    with _changed() as (path, document):
        _put(document, profile)
        if default or "default" not in document:
            document["default"] = profile.name
    return path


def store_local(profile: Profile, data_dir: Path) -> bool:
    """Write the profile of a stack on this machine; return whether it has the profile now.

    A profile of that name that somebody else wrote, or that is of another data
    directory, stays as it is. Raises CommandError as `store` does.
    """
    with _changed() as (_, document):
        found = _profiles(document).get(profile.name)
        if found is not None and found.get("data_dir") != str(data_dir):
            return False
        _put(document, profile)["data_dir"] = str(data_dir)
        if "default" not in document:
            document["default"] = profile.name
    return True


def _put(document: Any, profile: Profile) -> Any:
    """Put a profile into the document; return its table."""
    import tomlkit

    entry = _profiles(document).setdefault(profile.name, tomlkit.table())
    entry["url"] = profile.url
    entry["api_key"] = profile.api_key
    return entry


def _profiles(document: Any) -> Any:
    """Return the document's table of profiles, which is made if it is not there."""
    import tomlkit

    profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
    if not isinstance(profiles, Mapping) or not all(
        isinstance(each, Mapping) for each in profiles.values()
    ):
        raise ValueError("profiles must be a table of tables")
    return profiles


@contextmanager
def _changed() -> Iterator[tuple[Path, Any]]:
    """Yield the file's path and its document, which is written back if it was changed."""
    import tomlkit

    # What a link leads to is replaced, not the link.
    path = config_file().resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            document = tomlkit.parse(before)
            yield path, document
            after = tomlkit.dumps(document)
            if after != before:
                _replace(path, after)
            elif path.exists():
                path.chmod(0o600)
        finally:
            os.close(lock)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be used: {error}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file for its owner's eyes, there whole or not at all."""
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
