"""Settings from environment variables: sections of typed, bounded and described fields."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from environs import Env, EnvValidationError, ValidationError, validate

T = TypeVar("T")


class SettingsError(ValueError):
    """Invalid settings; the text has one line per problem and contains no value."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def setting(
    default: T,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: Sequence[str] = (),
    pattern: str = "",
    form: str = "",
) -> T:
    """Declare a field with its default, description and bounds.

    `pattern` is a regular expression that text must match in full; `form` says so to people.
    """
    value: T = field(
        default=default,
        metadata={
            "text": text,
            "at_least": at_least,
            "at_most": at_most,
            "one_of": one_of,
            "pattern": pattern,
            "form": form,
        },
    )
    return value


def parsed(
    default: T, text: str, parse: Callable[[str], T], *, example: str = "", separator: str = ""
) -> T:
    """Declare a field that `parse` makes of the given text.

    `parse` raises ValueError with a phrase that says what is wrong. An empty
    text counts as not set. `example` is shown in documentation where the
    default says nothing; `separator` joins the items of a list.
    """
    value: T = field(
        default=default,
        metadata={"text": text, "parse": parse, "example": example, "separator": separator},
    )
    return value


def required_secret(text: str, parse: Callable[[str], str] | None = None) -> Any:
    """Declare a required secret; `parse` as for `parsed`."""
    return field(repr=False, metadata={"text": text, "secret": True, "parse": parse})


def optional(text: str, *, url: bool = False) -> str:
    """Declare optional text; empty means not set."""
    value: str = field(default="", metadata={"text": text, "optional": True, "url": url})
    return value


def optional_names(text: str, *, pattern: str, form: str) -> tuple[str, ...]:
    """Declare a comma-separated list of names, empty by default.

    `pattern` is a regular expression that each must match in full; `form` says so to people.
    """
    value: tuple[str, ...] = field(
        default=(), metadata={"text": text, "pattern": pattern, "form": form}
    )
    return value


def optional_secret(text: str) -> str:
    """Declare an optional secret."""
    value: str = field(
        default="", repr=False, metadata={"text": text, "secret": True, "optional": True}
    )
    return value


@dataclass(frozen=True, slots=True)
class Renamed:
    """A variable that was set by a former name."""

    former: str
    variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Settings that belong together and share a prefix."""

    PREFIX: ClassVar[str] = "SCAIMIND_"
    #: Pairs of fields where the first must not exceed the second.
    ORDERED: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: Groups of optional fields that must be set all or none.
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = ()
    #: Pairs of optional fields of which one at most is set.
    EXCLUSIVE: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: Pairs of optional fields where the first needs the second.
    REQUIRES: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: The prefix of an earlier release. Its variables count where the new ones are not set.
    FORMER_PREFIX: ClassVar[str] = ""
    #: Fields whose former variable is now another program's: where both are set, the new one
    #: counts. Of the others, two different values are a problem.
    SHARED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read this section. Raises `SettingsError` that names every invalid variable."""
        env = _Environment(environ)
        values = {each.name: env.read(cls._given(each, environ), each) for each in fields(cls)}
        problems = [*cls._contradictions(environ), *env.problems(), *cls._disorder(values)]
        problems = problems or [*cls._lone(values)]
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the environment variable of a field."""
        return cls.PREFIX + name.upper()

    @classmethod
    def variables(cls) -> Iterator[str]:
        """Yield every variable that is read: those that name files, and former ones, too."""
        for each in fields(cls):
            suffixes = ("", "_FILE") if each.metadata.get("secret") else ("",)
            for name in filter(None, (cls.variable(each.name), cls._former(each.name))):
                yield from (name + suffix for suffix in suffixes)

    @classmethod
    def renamed(cls, environ: Mapping[str, str]) -> list[Renamed]:
        """Return the variables that are set by their former names and count."""
        found = []
        for each in fields(cls):
            variable, former = cls.variable(each.name), cls._former(each.name)
            set_by_former = cls._values(each, former, environ)
            if set_by_former and not (
                each.name in cls.SHARED and cls._values(each, variable, environ)
            ):
                found += [Renamed(former + suffix, variable + suffix) for suffix in set_by_former]
        return found

    @classmethod
    def _former(cls, name: str) -> str:
        return cls.FORMER_PREFIX and cls.FORMER_PREFIX + name.upper()

    @classmethod
    def _given(cls, setting: "Field[Any]", environ: Mapping[str, str]) -> str:
        """Return the variable that sets a field: its own, or the former one if only that is set."""
        variable, former = cls.variable(setting.name), cls._former(setting.name)
        if cls._values(setting, variable, environ) or not cls._values(setting, former, environ):
            return variable
        return former

    @staticmethod
    def _values(setting: "Field[Any]", variable: str, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what is set for a field, by the suffix of the variable."""
        if not variable:
            return {}
        suffixes = ("", "_FILE") if setting.metadata.get("secret") else ("",)
        return {each: environ[variable + each] for each in suffixes if variable + each in environ}

    @classmethod
    def _contradictions(cls, environ: Mapping[str, str]) -> Iterator[str]:
        for each in fields(cls):
            if each.name in cls.SHARED:
                continue
            variable, former = cls.variable(each.name), cls._former(each.name)
            new, old = cls._values(each, variable, environ), cls._values(each, former, environ)
            if new and old and new != old:
                yield f"{variable}: differs from {former}, its former name. Remove {former}."

    @classmethod
    def _disorder(cls, values: Mapping[str, Any]) -> Iterator[str]:
        for low, high in cls.ORDERED:
            if None not in (values[low], values[high]) and values[low] > values[high]:
                yield f"{cls.variable(low)}: must not exceed {cls.variable(high)}."

    @classmethod
    def _lone(cls, values: Mapping[str, Any]) -> Iterator[str]:
        for group in cls.TOGETHER:
            missing = [name for name in group if values[name] in _UNSET]
            if len(missing) < len(group):
                others = ", ".join(cls.variable(name) for name in group if name not in missing)
                yield from (
                    f"{cls.variable(name)}: required together with {others}." for name in missing
                )
        for name, needed in cls.REQUIRES:
            if values[name] not in _UNSET and values[needed] in _UNSET:
                yield f"{cls.variable(name)}: requires {cls.variable(needed)}."
        for name, other in cls.EXCLUSIVE:
            if values[name] not in _UNSET and values[other] not in _UNSET:
                yield f"{cls.variable(name)}: set it or {cls.variable(other)}, and not both."


#: Values of optional fields that are not set.
_UNSET = ("", None)


class _Environment(Env):
    """environs over a given mapping instead of the process's environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._given = environ
        self._found: list[str] = []

    def read(self, variable: str, setting: "Field[Any]") -> Any:
        """Parse one variable; problems are collected for `problems`."""
        parse = setting.metadata.get("parse")
        if setting.metadata.get("secret") and f"{variable}_FILE" in self._given:
            secret = self._read_file(f"{variable}_FILE")
            return self._parse(f"{variable}_FILE", parse, secret) if parse and secret else secret
        if parse and self._given.get(variable):
            return self._parse(variable, parse, self._given[variable])
        if parse and setting.default is not MISSING:
            return setting.default
        if setting.default is MISSING and (parse or variable not in self._given):
            self._found.append(f"{variable}: not set. {setting.metadata['text']}")
            return None
        parsers: Mapping[Any, Callable[..., Any]] = {
            int: self.int,
            float: self.float,
            str: self.str,
            tuple[str, ...]: self._read_names,
        }
        return parsers[setting.type](variable, setting.default, validate=_validators(setting))

    def _parse(self, variable: str, parse: Callable[[str], Any], text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            self._found.append(f"{variable}: {error}.")
            return None

    def _read_names(
        self, variable: str, default: tuple[str, ...], *, validate: Sequence[Callable[[str], Any]]
    ) -> tuple[str, ...]:
        given = (name.strip() for name in self._given.get(variable, "").split(","))
        names = tuple(name for name in given if name)
        for number, name in enumerate(names, start=1):
            try:
                for check in validate:
                    check(name)
            except ValidationError as error:
                told = " ".join(map(str, error.messages))
                self._found.append(f"{variable}: entry {number} {told}")
        return names or default

    def problems(self) -> list[str]:
        """Return all problems, one line each."""
        try:
            self.seal()
        except EnvValidationError as error:
            messages: Mapping[str, Sequence[str]] = error.error_messages  # type: ignore[assignment]  # a mapping after seal()
            self._found += [f"{name}: {' '.join(what)}" for name, what in messages.items()]
        return self._found

    def _read_file(self, variable: str) -> str:
        try:
            secret = Path(self._given[variable]).read_text(encoding="utf-8").strip()
            problem = None if secret else "the file is empty"
        except (OSError, UnicodeDecodeError) as error:
            secret = ""
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            problem = f"the file cannot be read: {reason}"
        if problem is not None:
            self._found.append(f"{variable}: {problem}.")
        return secret

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._given.get(env_key, default)


def _validators(setting: "Field[Any]") -> list[Any]:
    about = setting.metadata
    found: list[Any] = []
    if about.get("at_least") is not None or about.get("at_most") is not None:
        found.append(validate.Range(about["at_least"], about["at_most"]))
    if about.get("one_of"):
        found.append(validate.OneOf(about["one_of"]))
    if about.get("pattern"):
        text = f"must be {about['form']}."
        found.append(validate.Regexp(rf"\A(?:{about['pattern']})\Z", error=text))
    if about.get("url"):
        found.append(_url_or_nothing)
    elif setting.type is str and not about.get("optional"):
        found.append(_not_blank)
    return found


_URL = validate.URL(schemes={"http", "https"}, require_tld=False)


def _url_or_nothing(value: str) -> None:
    if not value:
        return
    _URL(value)
    if urlsplit(value).username is not None:
        raise ValidationError("Must not contain a user name or a password.")


def _not_blank(value: str) -> None:
    if not value.strip():
        raise ValidationError("Must not be empty.")


KiB = 1024


MiB = 1024 * KiB
