"""All settings of the coordinator, read once from a TOML file and `SCAIMIND_COORDINATOR_*`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from app.configuration.section import Section, SettingsError
from app.configuration.toml_file import with_file
from app.coordinator.settings.data import DEFAULT_DATA_DIR, DataSettings
from app.coordinator.settings.engine import EngineSettings
from app.coordinator.settings.nodes import NodeSettings
from app.coordinator.settings.packages import PackageSettings
from app.coordinator.settings.retention import RetentionSettings
from app.coordinator.settings.runs import RunSettings
from app.coordinator.settings.scheduling import SchedulingSettings
from app.coordinator.settings.serving import ServingSettings
from app.coordinator.settings.state import StateSettings
from app.coordinator.settings.tokens import TokenSettings
from app.coordinator.settings.trainers import TrainerSettings

PREFIX: Final = "SCAIMIND_COORDINATOR_"
#: Names the TOML file, unless the command line does.
FILE_VARIABLE: Final = f"{PREFIX}CONFIG"
#: In the order of the documentation.
SECTIONS: Final[tuple[type[Section], ...]] = (
    DataSettings,
    StateSettings,
    ServingSettings,
    TokenSettings,
    RunSettings,
    RetentionSettings,
    PackageSettings,
    TrainerSettings,
    NodeSettings,
    SchedulingSettings,
    EngineSettings,
)


class BadConfig(SettingsError):
    """The coordinator cannot start with its settings. Each problem names one."""

    def __init__(self, *problems: str) -> None:
        super().__init__(problems)


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig(
    DataSettings,
    StateSettings,
    ServingSettings,
    TokenSettings,
    RunSettings,
    RetentionSettings,
    PackageSettings,
    TrainerSettings,
    NodeSettings,
    SchedulingSettings,
    EngineSettings,
):
    """Every setting of the coordinator. Times are in seconds, sizes in bytes.

    A field's name is its key in the TOML file, and in capitals, behind
    `SCAIMIND_COORDINATOR_`, its environment variable.
    """

    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        *ServingSettings.TOGETHER,
        *TokenSettings.TOGETHER,
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, file: Path | None = None) -> Self:
        """Read a TOML file and the environment, which takes precedence.

        The file is `file`, else the one that SCAIMIND_COORDINATOR_CONFIG
        names. An empty variable counts as not set. Raises BadConfig.
        """
        if file is None and (named := environ.get(FILE_VARIABLE)):
            file = Path(named)
        try:
            sources = with_file(cls, file, environ)
            variable = cls.variable("data_dir")
            try:
                return super().from_env({variable: str(DEFAULT_DATA_DIR), **sources.variables})
            except SettingsError as error:
                raise sources.located(error) from None
        except SettingsError as error:
            raise BadConfig(*error.problems) from None
