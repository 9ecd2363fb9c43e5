"""What programs say of themselves when they fail: stacks, objects, statements of SQL."""

from typing import Final

from app.bridge.insides.classes import any_of

TRACEBACKS: Final = any_of(
    "traceback",
    r"Traceback \(most recent call last\)",
    r'\bFile "[^"\n]{1,400}", line \d+',
    r"\bUnexpected <class '",
    r"\bException (?:calling application|iterating responses|in thread \"|in ASGI application)",
    r"\bDuring handling of the above exception\b",
    r"\b(?:site|dist)-packages\b",
    r"\bTask exception was never retrieved\b",
    r"\bcoro=<",
    r"\bfuture: <",
    # Java, Kotlin, Scala; .NET; JavaScript; Ruby; PHP
    r"^[ \t]*at [\w.$<>/ ]{1,300}\(",
    r"\bat [\w.$<>/]{1,300}\((?:[\w.$-]{1,200}:\d+|Native Method|Unknown Source)\)",
    r"^[ \t]*\.\.\. \d+ (?:more|common frames omitted)",
    r"\bCaused by: ",
    (
        r"\b(?:java|javax|kotlin|scala|jdk|sun|io\.grpc|org\.(?:apache|hibernate|postgresql"
        r"|springframework)|com\.(?:zaxxer|mysql|google|amazonaws|sun))\.[\w.$]{0,200}[A-Z]"
    ),
    r"\bObject reference not set to an instance\b",
    r"\bCannot read propert(?:y|ies) of (?:undefined|null)\b",
    r"\bis not a function\b(?: at\b|$)",
    r"\bundefined method [`'\"]",
    r"^PHP (?:Fatal|Warning|Notice|Parse)",
    r"\bnode:internal/",
    r"\bUnhandledPromiseRejection\w*",
    r"\bsyscall: '",
    r"\berrno: -\d+",
    r":\d+:in [`'\"]",
    r"\*\* \((?:exit|EXIT|stop|\w+Error)\)",
    r"#PID<",
    r"\{error,\s?\{?\w+",
    r"\b(?:System|Microsoft|Npgsql|MySqlConnector|Dapper|StackExchange)\.[A-Z]\w+",
    # Go
    (
        r"\b(?:net|crypto|os|io|database|encoding|archive|compress|runtime|sync|go)"
        r"/[a-z0-9/]{1,40}: "
    ),
    r"\bexec: \"[^\"\n]{1,200}\": ",
    r"\bClient\.Timeout\b",
    r"\brequest canceled\b",
    r"\bgoroutine \d+ \[",
    r"^panic: ",
    r"\bpanic: (?:runtime error|interface conversion|assignment to entry in nil map)",
    r"\bruntime error: (?:invalid memory address|index out of range|slice bounds|integer divide)",
    r"\[signal SIG[A-Z]+",
    r"\bfatal error: (?:concurrent map|all goroutines|unexpected signal|runtime)",
    r"\bnil pointer\b",
    r"\bnull pointer\b",
    r"\bcontext (?:canceled|deadline exceeded)$",
    r"\binterface conversion: ",
    r"\bjson: cannot unmarshal\b",
    # Rust
    r"\bthread '[^'\n]{1,200}'(?: \(\d+\))? panicked at",
    r"\bpanicked at ['\"\w/]",
    r"\bRUST_BACKTRACE\b",
    r"^[ \t]*stack backtrace:",
    r"\bcalled `(?:Option|Result)::\w+\(\)` on ",
    r"\b(?:Os|Io|Database|Pool|Sqlx?) ?\{ (?:code|kind|message)",
    r"\b(?:hyper|tokio|reqwest|tonic|sqlx|diesel|actix|axum|rustls)(?:::|\b: )\w*",
    r"\berror sending request for url\b",
    # C and C++
    r"\bterminate called after throwing\b",
    r"(?:^|\s)#\d+\s+0x[0-9a-f]+",
    r"\b(?:std|boost|absl|grpc(?:_core)?|google)::[a-z_]\w*::[\w:]+",
    r"\bAddressSanitizer\b",
    r"\bdouble free or corruption\b",
)

OBJECTS: Final = any_of(
    "object",
    r"<[\w.]{1,200} (?:object )?at 0x",
    r"<class '",
    r"<(?:bound method|function|coroutine object|module|Task|Future)\b",
    r"\b0x[0-9a-fA-F]{8,16}\b",
    r"\bEvent loop is closed\b",
    r"\bcannot schedule new futures\b",
    r"\bgot Future\b",
)

#: What Python says of any program's mistake, a job's script included.
MISTAKES: Final = any_of(
    "mistake",
    r"'[\w.]{1,100}' object (?:has no attribute|is not|does not|cannot|doesn't)",
    r"\bNoneType\b",
    r"\b(?:list|tuple|string|pop from an empty|deque) index out of range\b",
    r"\bmissing \d+ required (?:positional|keyword)",
    r"\b(?:takes|got) (?:\d+|an) (?:positional|unexpected keyword) argument",
    r"\bunhashable type\b",
    r"\bmaximum recursion depth\b",
    r"\bchanged size during iteration\b",
    r"\bcannot unpack non-iterable\b",
    r"\bnot enough values to unpack\b",
    r"\btoo many values to unpack\b",
)

SQL: Final = any_of(
    "sql",
    # In capitals as drivers and mappers print it; else only with what English never has.
    r"\bSELECT\s[\s\S]{1,500}?\sFROM\s",
    r"\bSELECT\s+(?:pg_|nextval|version\(|1\b)",
    r"\bINSERT\s+INTO\s",
    r"\bUPDATE\s+\S{1,200}\s+SET\s",
    r"\bDELETE\s+FROM\s",
    (
        r"\b(?:CREATE|ALTER|DROP|TRUNCATE|LOCK|VACUUM)\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW"
        r"|SCHEMA|DATABASE|SEQUENCE|ROLE|USER|EXTENSION)\b"
    ),
    r"\b(?:GRANT|REVOKE)\s+[A-Z, ]{2,60}\s+(?:ON|TO)\s",
    (
        r"(?i)\bselect\s+[\w.\"`]{1,80}\s*,[^\n]{0,300}?\sfrom\s+[\w.\"`]{1,200}\s*(?:;|\)"
        r"|\bwhere\b|\bjoin\b|\border by\b|\blimit\b)"
    ),
    r"(?i)\bselect\s+(?:\*|count\(|distinct\s)[^\n]{0,300}?\sfrom\s",
    (
        r"(?i)\bselect\s[^\n]{1,200}?\sfrom\s[^\n]{1,100}?\bwhere\s+[\w.\"`]{1,100}\s*(?:=|<"
        r"|>|!=|\bin\s*\(|\blike\s*')"
    ),
    r"(?i)\binsert\s+into\s+[\w.\"`]{1,200}\s*(?:\(|values\b)",
    r"(?i)\bupdate\s+[\w.\"`]{1,200}\s+set\s+[\w.\"`]{1,200}\s*=",
    r"(?i)\bdelete\s+from\s+[\w.\"`]{1,200}\s+where\s+[\w.\"`]{1,200}\s*(?:=|<|>|\bin\s*\()",
    r"(?i)\bcreate\s+(?:table|index)\s+[\w.\"`]{1,200}\s*\(",
    r"\[SQL: ",
    r"\[parameters: ",
    r"^LINE \d+: ",
    r"\bSTATEMENT:  ",
)
