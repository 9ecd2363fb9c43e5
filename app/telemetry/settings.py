"""Settings of the log."""

from dataclasses import dataclass

from app.configuration.section import Section, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings(Section):
    """Logs."""

    log_level: str = setting(
        "info",
        "Minimum severity of events that are logged.",
        one_of=("debug", "info", "warning", "error"),
    )
