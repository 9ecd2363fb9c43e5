"""Settings from a TOML file, which environment variables override."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from app.configuration.section import Section, SettingsError


@dataclass(frozen=True, slots=True)
class Sources:
    """Settings of a file and of the environment, as variables."""

    variables: Mapping[str, str]
    #: Where a variable that the file sets is in it, for messages.
    places: Mapping[str, str]

    def located(self, error: SettingsError) -> SettingsError:
        """Return the error with the file's keys in the place of variables that it sets."""
        return SettingsError([self._located(problem) for problem in error.problems])

    def _located(self, problem: str) -> str:
        variable, colon, rest = problem.partition(": ")
        return f"{self.places.get(variable, variable)}{colon}{rest}"


def with_file(section: type[Section], path: Path | None, environ: Mapping[str, str]) -> Sources:
    """Return the settings of a file, overridden by those of the environment.

    The keys of the file are the section's fields; `<field>_file` names the
    file that has a secret. Empty variables count as not set. Raises
    SettingsError, which names the file and the key.
    """
    given = {variable: text for variable, text in environ.items() if text}
    if path is None:
        return Sources(given, {})
    variables, places = dict(given), {}
    for key, value in _document(path).items():
        name, suffix, setting = _setting(section, path, key)
        variable = section.variable(name)
        # A secret's two variables are one setting.
        if variable not in given and f"{variable}_FILE" not in given:
            separator = "" if suffix else setting.metadata.get("separator", "")
            places[variable + suffix] = f"{path}: {key}"
            variables[variable + suffix] = _text(f"{path}: {key}", value, separator)
    return Sources(variables, places)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}."]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: not valid TOML: {error}."]) from None


def _setting(section: type[Section], path: Path, key: str) -> "tuple[str, str, Field[Any]]":
    """Return the field that a key sets, the suffix of its variable, and the field's declaration."""
    known = {}
    for each in fields(section):
        known[each.name] = (each.name, "", each)
        if each.metadata.get("secret"):
            known[f"{each.name}_file"] = (each.name, "_FILE", each)
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError([f"{path}: {key}: there is no such setting.{hint}"])
    return known[key]


def _text(place: str, value: Any, separator: str) -> str:
    """Return a TOML value as the text that a variable would have."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if separator and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return separator.join(value)
    kinds = "a list of strings" if separator else "a string or a number"
    raise SettingsError([f"{place}: must be {kinds}."])
