"""Commands for training jobs.

Not here: what concerns other objects, and anything that a program could want.
"""

from typing import Final

import click

from scaimind.cli.main import Lazy

#: Where each command is, and its line in `--help`.
COMMANDS: Final = {
    "cancel": ("scaimind.cli.jobs.steering:cancel", "End jobs."),
    "checkpoints": ("scaimind.cli.jobs.reading:checkpoints", "List a job's checkpoints."),
    "delete": ("scaimind.cli.jobs.steering:delete", "Delete jobs that have ended."),
    "get": ("scaimind.cli.jobs.reading:get", "Show one job."),
    "list": ("scaimind.cli.jobs.reading:list_jobs", "List jobs, newest first."),
    "logs": ("scaimind.cli.jobs.logs:logs", "Print or follow a job's log."),
    "metrics": ("scaimind.cli.jobs.reading:metrics", "Print or draw a job's numbers."),
    "pause": ("scaimind.cli.jobs.steering:pause", "Stop running jobs, to be resumed."),
    "resume": ("scaimind.cli.jobs.steering:resume", "Put paused jobs back to work."),
    "retry": ("scaimind.cli.jobs.steering:retry", "Run a failed job again, as a new one."),
    "submit": ("scaimind.cli.jobs.submit:submit", "Submit a job."),
    "watch": ("scaimind.cli.jobs.watch:watch", "Show jobs as they change."),
    "wait": ("scaimind.cli.jobs.logs:wait", "Wait until jobs have ended."),
}


@click.command(cls=Lazy, places=COMMANDS)
def jobs() -> None:
    """Submit, follow and steer training jobs.

    A job is named by its id, by a unique beginning of it, or by '-', the newest.
    """
