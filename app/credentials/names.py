"""The table of names: of variables, fields, headers and arguments that hold credentials.

Names are compared in capitals, by their segments: those between underscores,
dashes and dots, and the words of a name such as `apiKey`. Digits at the end of
a segment do not count (`HF_TOKEN2`).
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

#: A name whose last segment is one of these holds a credential.
_LAST: Final = frozenset(
    {
        *("TOKEN", "KEY", "KEYS", "PASS", "PWD", "PW", "PAT", "JWT", "DSN", "SIG", "TICKET"),
        *("AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "PASSCODE"),
        *("JSESSIONID", "PHPSESSID", "SESSIONID"),
    }
)
#: A name that has one of these segments anywhere holds a credential.
_ANYWHERE: Final = frozenset(
    {
        *("SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE"),
        *("CREDENTIAL", "CREDENTIALS", "CREDS", "APIKEY", "CONNSTR", "MNEMONIC"),
    }
)
#: These segments behind each other, anywhere.
_BEHIND_EACH_OTHER: Final = frozenset(
    {
        *(("API", "KEY"), ("ACCESS", "KEY"), ("PRIVATE", "KEY"), ("ACCESS", "TOKEN")),
        *(("CONNECTION", "STRING"), ("CONN", "STR"), ("WEBHOOK", "URL")),
        *(("AMZ", "SIGNATURE"), ("GOOG", "SIGNATURE"), ("ACCESS", "SIGNATURE")),
        *(("CLIENT", "ASSERTION"), ("SESSION", "TOKEN")),
    }
)
#: Two words written as one: `PGPASSWORD`, `AUTHTOKEN`, `SSHKEY`.
_IN_ONE_WORD: Final = re.compile(
    r".+(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS)"
    r"|(?:API|ACCESS|ACCOUNT|AUTH|DEPLOY|ENCRYPTION|LICENSE|PRIVATE|SECRET|SHARED|SIGNING|SSH)KEYS?"
)
#: The shell's own, which hold directories; and which credential it was, in the audit trail.
_NEVER: Final = frozenset({"PWD", "OLDPWD", "CREDENTIAL_ID"})
#: What stands before TOKEN or KEY where it is a word of a text, a place in a list or a column.
_HARMLESS: Final = {
    "TOKEN": frozenset(
        {
            *("PAD", "EOS", "BOS", "UNK", "SEP", "CLS", "MASK", "SPECIAL", "IMAGE", "STOP"),
            *("START", "END", "NEXT", "PAGE", "FIRST", "LAST", "NEW", "PREFIX", "SUFFIX"),
        }
    ),
    "KEY": frozenset(
        {
            *("FOREIGN", "SORT", "PARTITION", "GROUP", "TEXT", "LABEL", "COLUMN", "METRIC"),
            *("INPUT", "OUTPUT", "PROMPT", "BATCH", "IDEMPOTENCY", "PUBLIC", "FEATURE", "DICT"),
        }
    ),
}
#: Each name of a credential has one of these in it, in small letters.
STEMS: Final = (
    *("token", "key", "pass", "pwd", "pw", "pat", "jwt", "dsn", "sig", "ticket", "auth"),
    *("bearer", "cookie", "sessionid", "secret", "cred", "conn", "mnemonic", "webhook"),
    *("assertion",),
)
_SPLIT: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_.-]+")


@lru_cache(maxsize=1024)
def names_credential(name: str) -> bool:
    """Whether what has this name is a credential."""
    if name.upper() in _NEVER:
        return False
    segments = segments_of(name)
    if not segments:
        return False
    if names_secret(name):
        return True
    last, before = segments[-1], segments[-2] if len(segments) > 1 else ""
    if before and before in _HARMLESS.get(last, ()):
        return False
    return last in _LAST


@lru_cache(maxsize=1024)
def names_secret(name: str) -> bool:
    """Whether what has this name is a credential, and is never called so for another reason."""
    segments = segments_of(name)
    return name.upper() not in _NEVER and (
        not _ANYWHERE.isdisjoint(segments)
        or any(pair in _BEHIND_EACH_OTHER for pair in pairwise(segments))
        or any(_IN_ONE_WORD.fullmatch(segment) for segment in segments)
    )


def segments_of(name: str) -> list[str]:
    """The segments of a name, in capitals, without digits at their ends."""
    words = _SPLIT.sub("_", name).upper().split("_")
    return [short for word in words if (short := word.rstrip("0123456789"))]
