"""The last line of defence: no log line leaves with something that looks like a secret.

No code should log a secret in the first place. This works on the finished
JSON line, so that it reaches every field, nested ones and tracebacks included.
"""

import re
from collections.abc import Iterable

MARK = b"[redacted]"

# In a JSON string a quote is always escaped: an unescaped one ends the value.
_IN_STRING = rb'(?:[^"\\]|\\.)'

_SECRET_FORMS = re.compile(
    rb"|".join(
        (
            # API keys of the platform, and stream tickets
            rb"sg[kt]_[A-Za-z0-9_-]{8,}",
            # JWS in compact form (RFC 7515): a header always begins with '{"', eyJ in base64url
            rb"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*",
            # Authorization headers (RFC 6750, RFC 7617)
            rb"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{8,}",
            rb"(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}",
            # user:password@ of a URI (RFC 3986, 3.2.1)
            rb'(?<=://)[^\s"\\/@:]*:(?:[^\s"\\@]|\\.)+(?=@)',
            # password=... of a libpq connection string, quoted or plain
            rb"(?<=password=)(?:'(?:[^'\"\\]|\\.)*'|(?:[^\s\"\\']|\\.)+)",
        )
    )
)
_SECRET_FIELDS = re.compile(
    rb'("(?:[a-z_.-]*[_.-])?(?:authorization|password|passwd|secret|api_key|token|dsn|ticket)"'
    rb'\s*:\s*")' + _IN_STRING + rb'+(?=")',
    re.IGNORECASE,
)


class Redaction:
    """Masks text that has the form of a secret, and given secrets.

    Known secrets shorter than eight bytes are left to the forms: they would
    match within ordinary words.
    """

    def __init__(self, *, known: Iterable[str] = ()) -> None:
        encoded = sorted({value.encode() for value in known if len(value) >= 8}, key=len)
        self._known = (
            re.compile(b"|".join(re.escape(value) for value in reversed(encoded)))
            if encoded
            else None
        )

    def __call__(self, line: bytes) -> bytes:
        """Return the line, a JSON text, with every secret replaced by the mark."""
        if self._known is not None:
            line = self._known.sub(MARK, line)
        line = _SECRET_FIELDS.sub(rb"\g<1>" + MARK, line)
        return _SECRET_FORMS.sub(MARK, line)
