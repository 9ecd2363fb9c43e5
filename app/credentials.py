"""Which environment variables of a job hold credentials, and what is shown in their place.

Coordinator and gateway both decide by these rules, so that neither shows what
the other hides; so this module imports nothing of them.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

#: What is shown in place of a credential.
MASK: Final = "***"

# Names are compared in capitals, by their segments: those between underscores, and the words
# of a name such as `apiKey`. Digits at the end of a segment do not count (`HF_TOKEN2`).

#: A name whose last segment is one of these holds a credential.
_LAST: Final = frozenset(
    {
        *("TOKEN", "KEY", "KEYS", "PASS", "PWD", "PAT", "JWT", "DSN"),
        *("AUTH", "AUTHORIZATION", "BEARER", "COOKIE"),
    }
)
#: A name that has one of these segments anywhere holds a credential.
_ANYWHERE: Final = frozenset(
    {
        *("SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE"),
        *("CREDENTIAL", "CREDENTIALS", "CREDS", "APIKEY", "CONNSTR"),
    }
)
#: These segments behind each other, anywhere.
_BEHIND_EACH_OTHER: Final = (
    *(("API", "KEY"), ("ACCESS", "KEY"), ("PRIVATE", "KEY"), ("ACCESS", "TOKEN")),
    *(("CONNECTION", "STRING"), ("CONN", "STR"), ("WEBHOOK", "URL")),
)
#: Two words written as one: `PGPASSWORD`, `AUTHTOKEN`, `SSHKEY`.
_IN_ONE_WORD: Final = re.compile(
    r".+(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS)"
    r"|(?:API|ACCESS|ACCOUNT|AUTH|DEPLOY|ENCRYPTION|LICENSE|PRIVATE|SECRET|SHARED|SIGNING|SSH)KEYS?"
)
#: The shell's own, which hold directories.
_NEVER: Final = frozenset({"PWD", "OLDPWD"})
#: Values that are credentials whatever their name: a URL with somebody's name or password in
#: it, a private key.
_VALUES: Final = re.compile(
    r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/?#]*@|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
)
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_credential(name: str, value: str) -> bool:
    """Whether a variable's value is to be shown to nobody."""
    return _names_credential(name) or _VALUES.search(value) is not None


def shown_value(name: str, value: str) -> str:
    """A variable's value as it may be shown: MASK if it is a credential.

    Applied again, it changes nothing.
    """
    return MASK if is_credential(name, value) else value


@lru_cache(maxsize=1024)
def _names_credential(name: str) -> bool:
    if name.upper() in _NEVER:
        return False
    words = _WORDS.sub("_", name).upper().split("_")
    segments = [short for word in words if (short := word.rstrip("0123456789"))]
    if not segments:
        return False
    return (
        segments[-1] in _LAST
        or not _ANYWHERE.isdisjoint(segments)
        or any(pair in _BEHIND_EACH_OTHER for pair in pairwise(segments))
        or any(_IN_ONE_WORD.fullmatch(segment) for segment in segments)
    )
