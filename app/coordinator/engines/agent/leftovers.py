"""Which runs a node keeps anything of, in its own directory."""

from app.coordinator.engines.agent.node_settings import NodeSettings


def kept_runs(settings: NodeSettings) -> list[tuple[str, int]]:
    """Return the job's id and the number of each run. Raises OSError. Blocks shortly."""
    directory = settings.records
    if not directory.is_dir():
        return []
    return [
        (run.parent.name, int(run.name))
        for run in directory.glob("*/*")
        if run.name.isdecimal() and run.is_dir()
    ]
