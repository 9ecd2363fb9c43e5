"""Where the gateway is, and the key for it: the environment, or a file of profiles.

The file is `~/.config/scaimind/config.toml` (XDG_CONFIG_HOME), mode 0600:

    default = "work"

    [profiles.work]
    url = "https://gateway.example"
    api_key = "sgk_..."
"""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Profile:
    """A gateway and what to authenticate with."""

    name: str
    url: str
    api_key: str = field(repr=False)


def config_file() -> Path:
    """Return the path of the file of profiles."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "scaimind" / "config.toml"


def load() -> dict[str, Any]:
    """Return what the file has; nothing where there is none. Raises UsageError if it is wrong."""
    path = config_file()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path} cannot be used: {error}") from error


def chosen(name: str | None) -> Profile:
    """Return the profile of a command: `--profile`, else the environment, else the default one.

    Raises UsageError if there is none, with what to do.
    """
    url, key = os.environ.get("SCAIMIND_URL", ""), os.environ.get("SCAIMIND_API_KEY", "")
    if name is None and url:
        return Profile("", url, key)
    config = load()
    profiles = config.get("profiles", {})
    if not isinstance(profiles, dict):
        raise click.UsageError(f"{config_file()}: profiles must be a table.")
    wanted = name or os.environ.get("SCAIMIND_PROFILE") or config.get("default")
    if wanted is None and len(profiles) == 1:
        wanted = next(iter(profiles))
    if wanted is None:
        raise click.UsageError(
            "No gateway is set: run 'scaimind login https://gateway.example', or set SCAIMIND_URL"
            " and SCAIMIND_API_KEY."
        )
    found = profiles.get(wanted)
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        known = ", ".join(sorted(profiles)) or "none"
        raise click.UsageError(f"There is no profile {wanted!r}; known: {known}.")
    return Profile(wanted, found["url"], key or str(found.get("api_key", "")))


def store(profile: Profile, *, default: bool) -> Path:
    """Write a profile; comments and other profiles stay. Returns the file."""
    import tomlkit

    path = config_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
    entry = profiles.setdefault(profile.name, tomlkit.table())
    entry["url"] = profile.url
    entry["api_key"] = profile.api_key
    if default or "default" not in document:
        document["default"] = profile.name
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(tomlkit.dumps(document))
    fresh.replace(path)
    return path
