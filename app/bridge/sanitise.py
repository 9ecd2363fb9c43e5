"""What of a coordinator's text a caller may read.

A detail that an operator of the coordinator meant for people passes as it is.
One that bears the marks of a program's insides does not pass at all, since
nobody can tell where in it the secrets are.
"""

import re

#: Characters that a caller is shown.
MAX_SHOWN = 1000
#: Characters that are searched and logged. What is longer is a dump, not a sentence.
MAX_SEARCHED = 8 * 1024

_SOURCE = "py|pyx|pyi|java|kt|kts|scala|clj|go|rs|c|cc|cpp|cxx|h|hpp|js|mjs|ts|rb|php|cs|swift|sql"

_TRACEBACKS = (
    r"Traceback \(most recent call last\)",
    r'\bFile "[^"\n]{1,400}", line \d+',
    r"\bUnexpected <class '",
    r"\bException (?:calling application|iterating responses|in thread \")",
    # Java, Kotlin, Scala; .NET; JavaScript
    r"^[ \t]*at [\w.$<>/ ]{1,300}\(",
    r"\bat [\w.$<>/]{1,300}\((?:[\w.$-]{1,200}:\d+|Native Method|Unknown Source)\)",
    r"^[ \t]*\.\.\. \d+ (?:more|common frames omitted)",
    r"\bCaused by: ",
    r"\b(?:[a-z_]\w{0,60}\.){1,8}[A-Z]\w{0,80}(?:Error|Exception)\b",
    r"\b(?:psycopg2?|asyncpg|sqlalchemy|sqlite3|pymysql|java|javax|kotlin|scala)\.[\w.]{0,200}[A-Z]",
    # Go
    r"\bgoroutine \d+ \[",
    r"^panic: ",
    r"\bpanic: (?:runtime error|interface conversion)",
    r"\bruntime error: (?:invalid memory address|index out of range|slice bounds|integer divide)",
    r"\[signal SIG[A-Z]+",
    # Rust
    r"\bthread '[^'\n]{1,200}'(?: \(\d+\))? panicked at",
    r"\bpanicked at ['\"\w/]",
    r"\bRUST_BACKTRACE\b",
    r"^[ \t]*stack backtrace:",
    r"\bcalled `(?:Option|Result)::\w+\(\)` on ",
    # C and C++
    r"\bterminate called after throwing\b",
    r"(?:^|\s)#\d+\s+0x[0-9a-f]+",
    r"\bSegmentation fault\b",
)

_SQL = (
    # In capitals as drivers and mappers print it; else only with what English never has.
    r"\bSELECT\s[\s\S]{1,2000}?\sFROM\s",
    r"\bINSERT\s+INTO\s",
    r"\bUPDATE\s+\S{1,200}\s+SET\s",
    r"\bDELETE\s+FROM\s",
    r"\b(?:CREATE|ALTER|DROP|TRUNCATE)\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|SCHEMA|DATABASE|SEQUENCE)\b",
    (
        r"(?i)\bselect\s+[\w.\"`]{1,80}\s*,[^\n]{0,500}?"
        r"\sfrom\s+[\w.\"`]{1,200}\s*(?:;|\)|\bwhere\b|\bjoin\b|\border by\b|\blimit\b)"
    ),
    r"(?i)\bselect\s+(?:\*|count\(|distinct\s)[^\n]{0,500}?\sfrom\s",
    r"(?i)\bselect\s[^\n]{1,200}?\sfrom\s[^\n]{1,200}?\bwhere\s+[\w.\"`]{1,200}\s*(?:=|<|>|!=|\bin\s*\(|\blike\s*')",
    r"(?i)\binsert\s+into\s+[\w.\"`]{1,200}\s*(?:\(|values\b)",
    r"(?i)\bupdate\s+[\w.\"`]{1,200}\s+set\s+[\w.\"`]{1,200}\s*=",
    r"(?i)\bdelete\s+from\s+[\w.\"`]{1,200}\s+where\s+[\w.\"`]{1,200}\s*(?:=|<|>|\bin\s*\()",
    r"(?i)\bcreate\s+(?:table|index)\s+[\w.\"`]{1,200}\s*\(",
    # What databases answer
    r"\[SQL: ",
    r"\bSQLSTATE\b",
    r"\bORA-\d{5}\b",
    r"(?i)\bsyntax error at or near\b",
    r"(?i)\bnear \"[^\"\n]{0,200}\": syntax error",
    r"(?i)\brelation \"[^\"\n]{1,200}\" does not exist",
    r"(?i)\bcolumn \"?[\w.]{1,200}\"? of relation\b",
    r"(?i)\bno such (?:table|column): ",
    r"(?i)\bviolates (?:unique|foreign key|check|not-null|exclusion) constraint",
    r"(?i)\b(?:unique|foreign key|not null|check) constraint failed\b",
    r"(?i)\bdeadlock detected\b",
    r"(?i)\bcurrent transaction is aborted\b",
)

_CONNECTIONS = (
    # Credentials in a URL of any scheme
    r"\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s/@:]{0,200}:[^\s@/]{1,200}@",
    (
        r"(?i)\b(?:jdbc:|(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle|sqlite|rediss?|amqps?"
        r"|mongodb|clickhouse|cockroachdb|nats|kafka|etcd|ldaps?|smtps?)(?:\+[a-z0-9]+)*://)"
    ),
    r"(?i)\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|access[_-]?token)\s*=\s*\S",
    (
        r"(?i)\b(?:host|hostaddr|server|data source)\s*=\s*\S+[\s;]+"
        r"[\s\S]{0,300}?\b(?:dbname|database|user|uid|port)\s*="
    ),
    r"(?i)\bauthorization:\s",
    r"(?i)\bbearer\s+[a-z0-9._~+/-]{16,}",
    r"\bsgk_[A-Za-z0-9_-]{8,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    r"-----BEGIN [A-Z ]{1,40}-----",
    r"\bAKIA[0-9A-Z]{12,}",
)

_SOURCE_LINES = (rf"[\w-]\.(?:{_SOURCE})(?::\d+|, line \d+|\(\d+|#L\d+|:line \d+)",)

#: Beside the above, where the text is most likely an uncaught exception's.
_FAILURES = (
    r"\b[A-Z]\w{0,80}(?:Error|Exception)\b",
    r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    r"\b(?:ipv4|ipv6|unix|dns):\S",
    r"\bRST_STREAM\b|\bHTTP/2\b|\bGOAWAY\b",
    r"\b0x[0-9a-fA-F]{6,}\b",
    r"\bnil pointer\b|\bNoneType\b|\bnull pointer\b",
    r"<[\w.]+ object at |<class '",
)


def _any_of(*groups: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(
        "|".join(
            f"(?i:{pattern.removeprefix('(?i)')})"
            if pattern.startswith("(?i)")
            else f"(?:{pattern})"
            for group in groups
            for pattern in group
        ),
        re.MULTILINE,
    )


_NOISE = _any_of(_TRACEBACKS, _SQL, _CONNECTIONS)
_POSITIONS = _any_of(_SOURCE_LINES)
_FAILURE_NOISE = _any_of(_FAILURES)

#: A tenant's own files, which it may read about by any name and line.
_TENANT_URL = re.compile(r"\bscai(?:drive|atlas)://[^\s'\"<>]*")

#: The directories of an absolute path, with at least one of them; neither a
#: URL nor the like of "and/or". The API's own paths are public.
_DIRECTORIES = re.compile(
    r"(?<![\w/.~-])(?!/v1/)/(?:[\w.+@~-]+/)+"
    r"|\b[A-Za-z]:\\(?:[^\s\\/:*?\"<>|]+\\)*"
    r"|(?<![\w\\])\\\\(?:[^\s\\/:*?\"<>|]+\\)+"
    r"|\bfile://\S*/"
)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

_SECRETS = re.compile(
    r"(?P<url>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s/@:]{0,200}:)[^\s@]{1,200}(?=@)"
    r"|(?P<pair>(?i:\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|access[_-]?token)"
    r"[\"']?\s*[=:]\s*))(?:\"[^\"]*\"|'[^']*'|[^\s;,&]+)"
    r"|(?P<bearer>(?i:\bbearer\s+))[A-Za-z0-9._~+/=-]{8,}"
    r"|\bsgk_[A-Za-z0-9_-]+"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|-----BEGIN [A-Z ]{1,40}-----[\s\S]*?(?:-----END [A-Z ]{1,40}-----|\Z)"
)


def presentable(detail: str, *, from_failure: bool = False) -> str | None:
    """Return what a caller may read of `detail`; None if nothing.

    An honest text comes back unchanged up to `MAX_SHOWN` characters. Of an
    absolute path only the file's name stays. `from_failure` says that the
    text comes from something that broke, and is looked at more strictly.
    """
    if not detail.strip() or len(detail) > MAX_SEARCHED:
        return None
    without_tenant_urls = _TENANT_URL.sub("", detail)
    if _NOISE.search(detail) or _POSITIONS.search(without_tenant_urls):
        return None
    if from_failure and (_FAILURE_NOISE.search(detail) or _DIRECTORIES.search(without_tenant_urls)):
        return None
    shown = _CONTROL.sub(" ", _DIRECTORIES.sub(".../", detail))
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def loggable(detail: str) -> str:
    """Return the raw detail for the log: bounded, with credentials masked."""
    bounded = detail if len(detail) <= MAX_SEARCHED else detail[:MAX_SEARCHED] + "…"
    return _SECRETS.sub(_starred, bounded)


def _starred(match: re.Match[str]) -> str:
    kept = match["url"] or match["pair"] or match["bearer"] or ""
    return kept + "***"
