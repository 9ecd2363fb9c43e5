"""The environment variables of jobs: which hold credentials, and what is shown of them."""

import re
from typing import Final

from app.credentials.masking import MASK
from app.credentials.names import names_credential

#: Values that are credentials whatever their name: a URL with somebody's name or password in
#: it, a private key.
_VALUES: Final = re.compile(
    r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/?#]*@|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
)


def is_credential(name: str, value: str) -> bool:
    """Whether a variable's value is to be shown to nobody."""
    return names_credential(name) or _VALUES.search(value) is not None


def shown_value(name: str, value: str) -> str:
    """A variable's value as it may be shown: MASK if it is a credential.

    Applied again, it changes nothing.
    """
    return MASK if is_credential(name, value) else value
