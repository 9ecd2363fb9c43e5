"""What programs log at their start."""

from collections.abc import Mapping

import structlog

log = structlog.get_logger()


def log_unknown(variables: Mapping[str, str]) -> None:
    """Warn about variables that no program reads, each with the one that may be meant."""
    for variable, meant in variables.items():
        log.warning("setting_unknown", variable=variable, did_you_mean=meant or None)
