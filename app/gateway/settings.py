"""Every setting of the gateway, read once from the environment.

A setting's variable is its section's prefix and its name in capitals: the
field `unary_timeout` of `UpstreamSettings` is
`SCAIMIND_UPSTREAM_UNARY_TIMEOUT`. A secret can also be read from a file
that `<variable>_FILE` names. Times are seconds, sizes are bytes, unless a
field says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from app.api.settings import CorsSettings, LimitsSettings, ServerSettings
from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.cache.settings import CacheSettings
from app.configuration.section import Renamed, Section, SettingsError
from app.database.settings import DatabaseSettings
from app.drive.settings import DriveSettings
from app.hub.settings import HubSettings
from app.telemetry.settings import TelemetrySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All sections."""

    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    cors: CorsSettings = field(default_factory=CorsSettings)
    upstream: UpstreamSettings
    database: DatabaseSettings
    cache: CacheSettings = field(default_factory=CacheSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    drive: DriveSettings = field(default_factory=DriveSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    #: Variables that were read by a former name.
    renamed: tuple[Renamed, ...] = field(default=(), compare=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read all sections. Raises one `SettingsError` with the problems of all of them."""
        sections: dict[str, Section] = {}
        problems: list[str] = []
        for name, section in SECTIONS.items():
            try:
                sections[name] = section.from_env(environ)
            except SettingsError as error:
                problems.extend(error.problems)
        if problems:
            raise SettingsError(problems)
        renamed = tuple(each for section in SECTIONS.values() for each in section.renamed(environ))
        return cls(**sections, renamed=renamed)  # type: ignore[arg-type]  # each name has its own section's type


SECTIONS: Mapping[str, type[Section]] = {
    "server": ServerSettings,
    "limits": LimitsSettings,
    "cors": CorsSettings,
    "upstream": UpstreamSettings,
    "database": DatabaseSettings,
    "cache": CacheSettings,
    "auth": AuthSettings,
    "hub": HubSettings,
    "drive": DriveSettings,
    "telemetry": TelemetrySettings,
}
