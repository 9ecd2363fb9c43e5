"""The profile `local` of the command `scaimind`, so that it works without a login."""

from collections.abc import Callable, Mapping

from app.local.data_dir import DataDir

NAME = "local"


def write_profile(
    url: str, data_dir: DataDir, environ: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Store where this stack is and its first key, for the user who runs it.

    A profile of that name stays if it is not of this data directory. Does
    nothing with SCAIMIND_NO_PROFILE, and where the client is not installed. What
    cannot be written is told: the stack runs without it.
    """
    if environ.get("SCAIMIND_NO_PROFILE"):
        return
    try:
        from scaimind.cli.main import CommandError
        from scaimind.cli.profiles import Profile, config_file, store_local
    except ImportError:
        return
    try:
        key = data_dir.api_key.read_text(encoding="ascii").strip()
        if store_local(Profile(NAME, url, key), data_dir.root):
            tell(f"Profile of the command scaimind: {NAME}, in {config_file()}")
        else:
            tell(
                f"Profile {NAME} in {config_file()} is not of this data directory: it was left "
                "as it is. Remove it there and start again to have it written."
            )
    except CommandError as error:
        tell(f"The command scaimind has no profile of this stack: {error.format_message()}")
    except OSError as error:
        tell(f"The command scaimind has no profile of this stack: {error}")
