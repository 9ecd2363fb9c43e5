"""The command line.

Each command imports what it needs when it runs, so that `--help` and the
small commands start at once. What went wrong is one line and a status of 1.
"""

import os

import click

from app.cli import checks, database, reference, services, stack
from app.cli.variables import warn_of_unknown

#: They name unknown variables in their own logs.
_WITH_LOGS = frozenset({"serve", "coordinator", "issuer"})
#: It logs nothing, and stays: what a logger imports would stay with it.
_WITHOUT_LOGGER = "up"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.pass_context
def main(context: click.Context) -> None:
    """ScaiMind's gateway: REST and Server-Sent Events in front of MindCoordinator.

    Settings come from SCAIMIND_* environment variables; 'settings' lists them.
    """
    if context.invoked_subcommand != _WITHOUT_LOGGER:
        from app.telemetry.logs import only_warnings

        only_warnings()  # 'serve', 'coordinator' and 'issuer' set up their own JSON logs.
    if context.invoked_subcommand not in _WITH_LOGS:
        warn_of_unknown(os.environ)


for _command in (
    stack.up,
    stack.token,
    services.serve,
    services.coordinator,
    services.issuer,
    database.migrate,
    database.keys,
    reference.settings,
    reference.errors,
    reference.openapi,
    checks.health,
    checks.check_ingress,
):
    main.add_command(_command)
