"""Finding the credentials in a text, and putting MASK in their place.

Found are those that have the form of one (`forms`), and the values that a text
gives to names of credentials (`names`), however it writes that: in an
environment's form, as JSON, YAML or a query, as an argument of a program, or in
prose. A value that only says something about a credential ("token: expired",
"password: it is too short") is none.

Linear in the text. Whoever has a text from outside bounds it first.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from app.credentials.forms import find_forms, is_random
from app.credentials.names import STEMS, names_credential, names_secret, segments_of

#: What is shown in place of a credential.
MASK: Final = "***"

#: A name, perhaps quoted, and what separates it from its value.
_NAMED: Final = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<flag>--?)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*+)"
    r"(?P<quote>\\{0,3}[\"'`]?\]?)(?P<sign>\s{0,4}(?:=>|->|:=|==?|:(?!:))\s{0,4}(?:[(\[](?=[\"']))?)"
)
#: The same for arguments, and for prose such as "with the password ...".
_FLAG: Final = re.compile(r"(?<![\w-])--?(?P<name>[A-Za-z][A-Za-z0-9_-]*+)\s{1,4}(?=[^\s-])")
_PROSE: Final = re.compile(
    r"(?i)\b(?P<name>(?:api|access|secret|account|private|shared)[ _-]?key|password|passwd"
    r"|passphrase|secret|token)s?\s{1,4}(?:is\s{1,4}|was\s{1,4}|of\s{1,4}|provided:?\s{1,4}|for\s{1,4})?(?=\S)"
)
#: Characters of a value that are looked at. What is longer is no word of a sentence.
_ENOUGH: Final = 512
#: Characters of a value that are judged by their order: nearly each name of a text may have one.
_JUDGED: Final = 128
#: Characters of a name's end that are looked at.
_LONGEST_NAME: Final = 128

#: As arguments in a list, and as a pair: `'--password', 'x'`, `('password', 'x')`.
_LISTED: Final = re.compile(
    r"(?:\(\s?b?[\"']|[\"']--?)(?P<name>[A-Za-z][A-Za-z0-9_-]*+)[\"'],\s{0,4}b?(?=[\"'])"
)
#: In fields of their own: `{"name": "DB_PASSWORD", "value": "x"}`.
_APART: Final = re.compile(
    r"(?i)\b(?:name|key)[\"']?\s?[:=]\s?[\"']?(?P<name>[A-Za-z][A-Za-z0-9_.-]*+)[\"']?[,;\s]{1,4}"
    r"[\"']?value[\"']?\s?[:=]\s?(?=\S)"
)
#: "Password for user ann: x".
_ASKED: Final = re.compile(
    r"(?i)\b(?P<name>password|passwd|passphrase|passwort)\s[^\n:=]{1,60}+[:=]\s{0,4}(?=\S)"
)

#: Fields whose value goes to the end of the line.
_WHOLE_LINE: Final = frozenset({"AUTHORIZATION", "COOKIE"})
_LINE: Final = re.compile(rf"[^\r\n\"]{{0,{_ENOUGH}}}+")
_SCHEME: Final = re.compile(r"(?i)(?:bearer|basic|digest|token|negotiate|apikey)\s+")

_QUOTES: Final = "\"'`"
#: A value without quotes ends at a space, and at what closes or continues a list of values.
_BARE: Final = re.compile(
    r"(?:[^\s;,&\"'`)\]}<>]|[;,&\"'`)\]}](?![\s;,&\"'`)\]}]|[\w.-]{1,40}=|\Z))"
    rf"{{0,{_ENOUGH}}}+"
)
_REST: Final = re.compile(r"[^\s\"]*+")
_REST_OF_LINE: Final = re.compile(r"[^\r\n\"]*+")
#: What stands in place of a value.
_PLACEHOLDER: Final = re.compile(
    r"(?i)(?:|[*x.•…]+|none|null|nil|true|false|yes|no|undefined|unset|empty|\.\.\.|redacted"
    r"|<.*|\[.*|\$\{?\w+\}?|%[sdr]|\{\w*\}?)"
)
#: How a sentence goes on that is about a credential.
_SAYS: Final = frozenset(
    {
        *("a", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "cannot"),
        *("could", "did", "does", "either", "empty", "exceeds", "expected", "expired", "failed"),
        *("field", "for", "format", "forbidden", "from", "give", "given", "got", "had", "has"),
        *("have", "if", "in", "incorrect", "invalid", "is", "it", "its", "leave", "length"),
        *("malformed", "may", "mismatch", "missing", "more", "must", "need", "needed", "needs"),
        *("neither", "never", "no", "nobody", "not", "nothing", "of", "on", "one", "only", "or"),
        *("permission", "please", "refused", "rejected", "required", "revoked", "send", "set"),
        *("should", "specify", "that", "the", "there", "this", "to", "too", "unauthorized"),
        *("unexpected", "unknown", "unsupported", "up", "use", "used", "value", "was", "were"),
        *("when", "which", "will", "with", "without", "wrong", "your", "you", "than", "then"),
        *("authentication", "access", "denied", "string", "str", "int", "type", "bytes"),
        *("limit", "limits", "count", "counts", "sequence", "ids", "id", "names", "name", "file"),
        *("lacks", "allows", "gives", "belongs", "ends", "begins", "starts", "stands", "into"),
        *("having", "provided", "passed", "itself", "alone", "stays", "because", "so", "do"),
        *("usage", "validation", "verification", "lookup", "exchange", "service", "indices"),
        *("embedding", "embeddings", "classification", "budget", "length", "per", "between"),
    }
)
_WORD: Final = re.compile(r"[A-Za-z']+")


#: Words, numbers, times and hexadecimal ids, of which a log is full and which hold none.
_PLAIN: Final = re.compile(r"[a-z]{0,32}|[A-Za-z_]{0,9}|[0-9T:.Z+-]{1,40}|(?:req_)?[0-9a-f]{1,64}")

_ID: Final = re.compile(r"(?:req_)?[0-9a-f]{16,64}")


def masked(text: str) -> str:
    """The text with MASK in place of every credential. Applied again, it changes nothing."""
    return _replaced(text, found_in(text))


def found_in(text: str) -> list[tuple[int, int]]:
    """The places of the credentials in a text, in order and without overlaps."""
    if _PLAIN.fullmatch(text):
        return []
    places = sorted(
        (start, end)
        for start, end in (*find_forms(text), *_find_named(text))
        if text[start:end] != MASK
    )
    joined: list[tuple[int, int]] = []
    for start, end in places:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


class Masker:
    """Masks what `masked` does, and given secrets, whatever they look like.

    Known secrets shorter than eight characters are left to their forms: they
    would be found within ordinary words.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        longest_first = sorted({value for value in known if len(value) >= 8}, key=len)[::-1]
        self._known = (
            re.compile("|".join(re.escape(value) for value in longest_first))
            if longest_first
            else None
        )

    def __call__(self, text: str) -> str:
        """The text as it may be shown or logged."""
        return masked(text if self._known is None else self._known.sub(MASK, text))

    def is_id(self, text: str) -> bool:
        """Whether a text is a hexadecimal id, of which none is a credential unless it is known."""
        return _ID.fullmatch(text) is not None and not self.knows(text)

    def knows(self, text: str) -> bool:
        """Whether one of the given secrets is in the text."""
        return self._known is not None and self._known.search(text) is not None


def is_value_of(name: str, value: str) -> bool:
    """Whether this is a credential for the name that a field has, such as one of a log line."""
    return names_credential(name) and _is_value(name, value, within=True, prose=False)


def _replaced(text: str, places: list[tuple[int, int]]) -> str:
    if not places:
        return text
    pieces: list[str] = []
    at = 0
    for start, end in places:
        pieces += (text[at:start], MASK)
        at = end
    return "".join((*pieces, text[at:]))


def _find_named(text: str) -> Iterator[tuple[int, int]]:
    lowered = text.lower()
    if not any(stem in lowered for stem in STEMS):
        return
    at = 0
    while match := _NAMED.search(text, at):
        at = match.end()
        name = match["name"][-_LONGEST_NAME:]
        if not names_credential(name) and name.upper() != "PWD":
            continue
        sign = match["sign"].strip()
        # `name: value` is a sentence's form, too; the others are a program's.
        prose = sign == ":" and match["sign"] != ":" and not match["quote"] and not match["flag"]
        start, end = _value(text, match.end(), name)
        value = text[start : min(end, start + _ENOUGH)]
        if _is_value(name, value, within=start > match.end(), prose=prose):
            if end - start == _ENOUGH:
                rest = (_REST_OF_LINE if _is_header(name) else _REST).match(text, end)
                end = rest.end() if rest else end
            at = end
            yield start, end
    for pattern in (_FLAG, _LISTED, _APART):
        for match in pattern.finditer(text):
            name = match["name"][-_LONGEST_NAME:]
            if names_credential(name):
                start, end = _value(text, match.end(), name)
                if _is_value(name, text[start:end], within=start > match.end(), prose=False):
                    yield start, end
    for pattern in (_PROSE, _ASKED):
        for match in pattern.finditer(text):
            start, end = _value(text, match.end(), match["name"])
            if _looks_secret(text[start:end].rstrip(".:!?")):
                yield start, end


def _value(text: str, at: int, name: str) -> tuple[int, int]:
    """The place of the value that begins at `at`, without its quotes or its scheme."""
    if _is_header(name) and text[at : at + 1] not in _QUOTES:
        line = _LINE.match(text, at)
        assert line is not None, "it matches nothing as well"
        scheme = _SCHEME.match(text, at, line.end())
        return (scheme.end() if scheme else at), line.end()
    opening = at
    while text[opening : opening + 1] == "\\":
        opening += 1
    quote = text[opening : opening + 1]
    if quote and quote in _QUOTES:
        start = end = opening + 1
        while (end := text.find(quote, end)) >= 0:
            last = end
            while last > start and text[last - 1] == "\\":
                last -= 1
            # Where the opening quote is escaped, so is the closing one.
            if opening > at:
                return start, last
            if not (end - last) % 2:
                return start, end
            end += 1
        return start, len(text)
    bare = _BARE.match(text, at)
    assert bare is not None, "it matches nothing as well"
    return bare.span()


def _is_header(name: str) -> bool:
    segments = segments_of(name)
    return bool(segments) and segments[-1] in _WHOLE_LINE


def _is_value(name: str, value: str, *, within: bool, prose: bool) -> bool:
    """Whether a name of a credential has this for its value, rather than something about it.

    `within` is set if the value was in quotes, or behind a header's scheme.
    """
    if _PLACEHOLDER.fullmatch(value) or (value.isdigit() and len(value) < 4):
        return False
    if within and _is_header(name):
        return True
    segments = segments_of(name)
    bare = value.rstrip(".:!?")
    weak = len(segments) == 1 and not names_secret(name)
    if segments == ["PWD"] and value[:1] in ("/", "~", "."):
        return False
    if prose:
        word = _WORD.match(value)
        says = word is not None and word[0].lower() in _SAYS and word.end() >= len(bare)
        if says and not within:
            return False
        return _looks_secret(bare) if weak else names_secret(name) or _looks_secret(bare)
    if not weak:
        return True
    if segments[0] in ("KEY", "KEYS"):
        return is_random(bare[:_JUDGED]) or (
            len(bare) >= 16 and bare.isalnum() and _looks_secret(bare)
        )
    return not bare.isdigit() and len(bare) >= 4 and bare.lower() not in _SAYS


def _looks_secret(value: str) -> bool:
    """Whether a word may be a credential, and is none of a sentence."""
    if len(value) < 6 or "/" in value[:1] or "://" in value:
        return False
    value = value[:_JUDGED]
    digits = sum(each.isdigit() for each in value)
    letters = sum(each.isalpha() for each in value)
    if is_random(value):
        return True
    if not letters:
        return False
    return (digits >= 1 and len(value) >= 7 and "." not in value) or any(
        each in value for each in "!#$%^&*+="
    )
