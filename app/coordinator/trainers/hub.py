"""Models that are named as a hub has them, `<owner>/<name>`: in this machine's cache, or fetched.

The cache is the coordinator's own (HF_HUB_CACHE, HF_HOME): who operates it decides what all
tenants may use. What is not in it is fetched by the job itself, into its own directory and
with its own credentials, where the machine reaches the hub.
"""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.coordinator.data.drive import BadUrl, shown

ENDPOINT: Final = "https://huggingface.co"
#: Seconds that the hub may take to answer.
_PATIENCE: Final = 10.0
_NAME: Final = re.compile(
    r"(?P<owner>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
)
_REVISION: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}"
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TRUE: Final = ("1", "on", "yes", "true")
#: Variables of a job by which it reaches the hub in another way than this process.
_OWN_WAY: Final = ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache."""

    #: Its files; they are links.
    path: Path
    #: The folder that has the files themselves as well.
    folder: Path


class Hub:
    """Blocks: call it in a thread."""

    def __init__(self, environ: Mapping[str, str], *, network: bool) -> None:
        """`environ` is the coordinator's; with `network`, jobs have the machine's network."""
        self._environ = environ
        self._network = network

    def find(
        self, name: str, *, revision: str = "", environment: Mapping[str, str]
    ) -> CachedModel | None:
        """Return a model of the cache; None if the job has to fetch it.

        `environment` has the job's own variables. Raises BadUrl if it cannot.
        """
        if _NAME.fullmatch(name) is None:
            raise BadUrl(
                f"{shown(name)} is neither a scaidrive:// or scaiatlas:// URL nor a name of a hub,"
                " <owner>/<name>"
            )
        if revision and _REVISION.fullmatch(revision) is None:
            raise BadUrl(f"{shown(revision)} is not a revision of a hub's model")
        if (found := self._cached(name, revision or "main")) is not None:
            return found
        version = f" at {revision}" if revision else ""
        missing = f"{name}{version} is not in this machine's cache of models"
        self.require(missing, advice=_ADVICE, environment=environment, joined=", and")
        return None

    def require(
        self,
        what: str,
        *,
        advice: str,
        environment: Mapping[str, str] | None = None,
        joined: str = " cannot be fetched:",
    ) -> None:
        """Raise BadUrl unless a job can fetch `what` from the hub.

        The message is `what`, `joined`, the reason and the `advice`; `environment` has the job's
        own variables.
        """
        environment = environment or {}
        if not self._network:
            raise BadUrl(f"{what}{joined} jobs have no network here. {advice}")
        if any(
            each.get("HF_HUB_OFFLINE", "").lower() in _TRUE for each in (self._environ, environment)
        ):
            raise BadUrl(f"{what}{joined} HF_HUB_OFFLINE is set. {advice}")
        if not any(environment.get(each) for each in _OWN_WAY) and (problem := self._unreachable()):
            raise BadUrl(f"{what}{joined} the hub cannot be reached: {problem}. {advice}")

    def _cached(self, name: str, revision: str) -> CachedModel | None:
        folder = self._cache() / f"models--{name.replace('/', '--')}"
        commit = revision
        if _COMMIT.fullmatch(revision) is None:
            try:
                with open(folder / "refs" / revision, encoding="ascii", errors="replace") as file:
                    commit = file.read(64).strip()
            except OSError:
                return None
            if _COMMIT.fullmatch(commit) is None:
                return None
        path = folder / "snapshots" / commit
        if any(
            (path / each).is_file()
            for each in ("config.json", "adapter_config.json", "tokenizer_config.json")
        ):
            return CachedModel(path, folder)
        return None

    def _cache(self) -> Path:
        """Return where Hugging Face's libraries keep what they fetched."""
        environ = self._environ
        if named := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
            return Path(named).expanduser()
        if home := environ.get("HF_HOME"):
            return Path(home, "hub").expanduser()
        return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface", "hub")

    def _unreachable(self) -> str:
        """Return why the hub does not answer, directly and in time; empty if it does."""
        endpoint = self._environ.get("HF_ENDPOINT") or ENDPOINT
        request = urllib.request.Request(endpoint, method="HEAD")
        # As the job will: it has none of this process's proxies.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_PATIENCE):
                return ""
        except urllib.error.HTTPError:
            # Whatever it says, it is there.
            return ""
        except urllib.error.URLError as error:
            return str(error.reason)
        except (OSError, ValueError) as error:
            return str(error)


_ADVICE: Final = (
    "Put its folder on the drive and name that (scaidrive://<tenant>/<path>), or have the operator"
    " fetch it into the cache"
)
