"""What no log, metric or error may hold: every secret of a test run is looked for in all of it.

A plugin of pytest. API keys, stream tickets and JWTs that are made in this
process are known by themselves; other secrets are made known with `secret`.
What is captured from tests, what child processes say (`written`) and every
log file below pytest's folder is kept, and searched when the run is over: a
run that has written a secret anywhere fails.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from joserfc import jwt

from app.auth.tickets import NewTicket
from app.scaikey.api_keys import NewKey

#: How much of a random secret is enough to know it by, a truncated one too.
_ENOUGH = 16
_WORD = re.compile(rb"[A-Za-z0-9_-]{%d,}" % _ENOUGH)
#: Secrets of other processes are known by their form alone.
_FORMS = re.compile(
    rb"sg[kt]_[A-Za-z0-9_-]{24,}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"
)
_LITERAL = "a literal"
#: Linux takes paths of at most 4,096 bytes; a name has 255.
_LONGEST_PATH = 3800
#: Of tests whose captured output is not searched.
MARKER = "writes_secrets"


class Watch:
    """The secrets that are known, and everything that was written."""

    def __init__(self) -> None:
        #: The beginnings of random ones, and what they are of.
        self._random: dict[bytes, str] = {}
        self._literal: dict[bytes, str] = {}
        #: By where it was written.
        self._kept: list[tuple[str, bytes]] = []

    def know(self, value: str, what: str) -> None:
        """Look for a secret from now on: random text in base64url, or any other text."""
        if what == _LITERAL:
            self._literal[value.encode()] = what
        else:
            self._random[value.encode()[:_ENOUGH]] = what

    def keep(self, origin: str, text: str | bytes) -> None:
        """Keep something that was written, to be searched at the end."""
        if text:
            # In memory: a file would block the event loops that are watched for that.
            encoded = text.encode(errors="surrogatepass") if isinstance(text, str) else text
            self._kept.append((origin, encoded))

    def findings(self) -> Iterator[str]:
        """Give where a secret was written, and which kind; never the secret itself."""
        clean: set[bytes] = set()
        for origin, text in self._kept:
            for what in sorted(set(self._in(text, clean))):
                yield f"{origin}: {what}"

    def _in(self, text: bytes, clean: set[bytes]) -> Iterator[str]:
        """Return what is in a text. `clean` has words without a secret, and gets more of them."""
        if _FORMS.search(text):
            yield "what has the form of a secret"
        for literal, what in self._literal.items():
            if literal in text:
                yield what
        for word in set(_WORD.findall(text)) - clean:
            parts = (word[start : start + _ENOUGH] for start in range(len(word) - _ENOUGH + 1))
            if found := {self._random[part] for part in parts if part in self._random}:
                yield from found
            else:
                clean.add(word)


#: Of this run: constants of test modules are made before any fixture.
_watch = Watch()


def secret(value: str) -> str:
    """Make a text known as a secret, and return it."""
    _watch.know(value, _LITERAL)
    return value


def written(origin: str, text: str | bytes) -> None:
    """Tell what a process, an answer or a file said."""
    _watch.keep(origin, text)


def written_files(folder: Path) -> None:
    """Tell what is in the log files below a folder."""
    # Not by recursion: a job under test may have made directories of any depth.
    folders = [folder]
    while folders:
        for entry in sorted(os.scandir(folders.pop()), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                # What is deeper than a path can tell is no log of ours.
                if len(os.fsencode(entry.path)) < _LONGEST_PATH:
                    folders.append(Path(entry.path))
                continue
            path = Path(entry.path)
            if path.is_file() and (path.suffix == ".log" or path.parent.name in ("log", "logs")):
                written(f"file {path.parent.name}/{path.name}", path.read_bytes())


def pytest_configure(config: pytest.Config) -> None:
    """Get to know what is made, and hear what is logged."""
    config.addinivalue_line(
        "markers", f"{MARKER}: logs secrets on purpose, past what would blot them out"
    )
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for kind, what in ((NewKey, "an API key"), (NewTicket, "a stream ticket")):
        patch.setattr(kind, "__init__", _known(kind.__init__, what))
    patch.setattr(jwt, "encode", _known_token(jwt.encode))
    patch.setattr(
        structlog.testing.LogCapture, "__call__", _heard(structlog.testing.LogCapture.__call__)
    )


def _known(make: Callable[..., None], what: str) -> Callable[..., None]:
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        _watch.know(self.secret.partition("_")[2], what)

    return made


def _known_token(encode: Callable[..., str]) -> Callable[..., str]:
    def encoded(*arguments: Any, **named: Any) -> str:
        token = encode(*arguments, **named)
        signature = token.rpartition(".")[2]
        if len(signature) >= _ENOUGH:
            _watch.know(signature, "a JWT")
        return token

    return encoded


def _heard(capture: Callable[..., Any]) -> Callable[..., Any]:
    def captured(self: Any, logger: Any, method: str, event: Any) -> Any:
        written("a captured log event", repr(event))
        return capture(self, logger, method, event)

    return captured


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what a test, or the fixtures around it, wrote."""
    if MARKER in report.keywords:
        return
    for name, text in report.sections:
        written(f"{report.nodeid}, {name}", text)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search: by now all fixtures are gone and all processes have ended."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and factory._basetemp is not None:
        written_files(factory.getbasetemp())
    found = session.config.stash.setdefault(_FOUND, [])
    found.extend(finding for finding in _watch.findings() if finding not in found)
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    # Several processes share the tests (pytest-xdist): the one that reports hears of it.
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["secrets"] = found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process that shared the tests has found."""
    found = getattr(node, "workeroutput", {}).get("secrets", [])
    node.config.stash.setdefault(_FOUND, []).extend(found)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what was found."""
    found = config.stash.get(_FOUND, [])
    if found:
        terminalreporter.section("secrets were written", sep="=", red=True)
        for line in found:
            terminalreporter.line(line)


_FOUND = pytest.StashKey[list[str]]()
