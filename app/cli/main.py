"""The command line.

Each command is imported when it is asked for, and imports what it needs when it runs, so
that the small ones start at once and no program holds the code of others. What went wrong
is one line and a status of 1.
"""

import os
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Final

import click

from app.cli.optional_packages import without
from app.cli.variables import warn_of_unknown

#: They name unknown variables in their own logs.
_WITH_LOGS = frozenset({"serve", "coordinator", "issuer"})
#: It logs nothing, and stays: what a logger imports would stay with it.
_WITHOUT_LOGGER = "up"
#: What structlog imports where it is there, for logs in colours and for greenlets.
OF_LOGGER = ("rich", "greenlet")

#: The module of `app.cli` that has the command, and what it is called there.
_COMMANDS: Final = {
    "up": ("stack", "up"),
    "token": ("stack", "token"),
    "serve": ("services", "serve"),
    "coordinator": ("services", "coordinator"),
    "issuer": ("services", "issuer"),
    "migrate": ("database", "migrate"),
    "keys": ("database", "keys"),
    "settings": ("reference", "settings"),
    "errors": ("reference", "errors"),
    "openapi": ("reference", "openapi"),
    "health": ("checks", "health"),
    "check-ingress": ("checks", "check_ingress"),
}


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._found: dict[str, click.Command | None] = dict.fromkeys(_COMMANDS)

    def __getitem__(self, name: str) -> click.Command:
        command = self._found[name]
        if command is None:
            module, attribute = _COMMANDS[name]
            command = self._found[name] = getattr(import_module(f"app.cli.{module}"), attribute)
            assert command is not None
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@click.group(
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def main(context: click.Context) -> None:
    """ScaiMind's gateway: REST and Server-Sent Events in front of MindCoordinator.

    Settings come from SCAIMIND_* environment variables; 'settings' lists them.
    """
    if context.invoked_subcommand != _WITHOUT_LOGGER:
        with without(*OF_LOGGER):
            from app.telemetry.logs import only_warnings

        only_warnings()  # 'serve', 'coordinator' and 'issuer' set up their own JSON logs.
    if context.invoked_subcommand not in _WITH_LOGS:
        warn_of_unknown(os.environ)
