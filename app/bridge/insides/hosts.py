"""Which addresses and names of hosts in a text are those of the deployment's inside."""

import ipaddress
import re
from typing import Final

#: Names of what deployments run, as hosts are called for them.
_ROLE: Final = (
    "postgres(?:ql)?|pg(?:bouncer|pool)?|mysql|mariadb|redis|valkey|memcached|etcd|kafka|zookeeper|zk"
    "|rabbitmq|amqp|nats|minio|ceph|vault|consul|mongo(?:db)?|clickhouse|cassandra|elastic(?:search)?"
    "|opensearch|prometheus|grafana|loki|jaeger|otel|nginx|envoy|haproxy|traefik|db|database|sql"
    "|coordinator|mindcoordinator|gateway|ingress|broker|proxy|nas|nfs|ldap|kdc|k8s|kube|bastion"
    "|keycloak|harbor|registry|gitlab|jenkins|slurmctld|slurmdbd|headnode|storage|s3"
)
_PART: Final = (
    "primary|replica|standby|master|slave|leader|follower|ro|rw|headless|svc|prod|staging|node"
    "|main|internal|server|cluster|int"
)
#: What ends a host's name without a number.
_SERVERS: Final = (
    "db|redis|pg|postgres|postgresql|mysql|mariadb|etcd|kafka|rabbitmq|mongo|mongodb|minio|vault|mq"
    "|memcached|pgbouncer|zookeeper|ldap"
)
#: Ends of names that only resolve inside.
_INNER: Final = (
    "internal|local|localdomain|lan|corp|intra|intranet|private|svc|consul|cluster|priv|home|int"
    "|mesh|cloudapp"
)
_CLOUD: Final = (
    r"amazonaws\.com|windows\.net|azure\.com|azurewebsites\.net|googleapis\.com|gserviceaccount\.com"
    r"|googleusercontent\.com|mongodb\.net|redislabs\.com|upstash\.io|neon\.tech|supabase\.co|azurecr\.io"
    r"|gcr\.io|pkg\.dev|snowflakecomputing\.com|confluent\.cloud|aivencloud\.com|ts\.net|r2\.dev"
    r"|cloudflarestorage\.com|digitaloceanspaces\.com|wasabisys\.com|backblazeb2\.com"
)

ADDRESS_V4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\w]|\.\d)")
_VERSION_BEFORE: Final = re.compile(
    r"(?i)(?:\bv|version|release|driver|cuda|cudnn|nccl|python|torch\w*|rocm|build|tag|firmware"
    r"|==|>=|<=|~=|[@=]|transformers|tensorrt|package|library)\s{0,2}\Z"
)
#: What stands around a version in a sentence, and around an address as well.
_PERHAPS_BEFORE: Final = re.compile(r"(?i)\b(?:and|or|than|needs|is|has)\s\Z")
_PERHAPS_AFTER: Final = re.compile(
    r"\s(?:is (?:installed|needed|required|too)|or (?:newer|later|older)|needs)"
)

ADDRESS_V6: Final = re.compile(
    r"(?<![\w:.])\[?(?P<address>[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?:%\w{1,16})?"
    r"(?P<port>\](?::\d{1,5})?)?(?![\w:])"
)

HOST_PORT: Final = re.compile(
    r"(?<![\w/.:@-])(?P<host>[A-Za-z][A-Za-z0-9_-]{0,62}+(?:\.[A-Za-z0-9-]{1,63}+){0,8}+)"
    r":(?P<port>\d{2,5})(?![\w:-]|\.\d)"
)
#: What a sentence says before a host.
_TO: Final = re.compile(
    r"(?i)\b(?:to|at|from|with|host|peer|upstream|via|on|by|server|address|endpoint|connect(?:ing)?|tcp"
    r"|listen(?:ing)?|bind|dial|reach|resolve|node|broker|backend|proxy)\s?[=:]?\s?[\"'`(<]?\Z"
)
_NO_HOST: Final = re.compile(
    r"(?i)(?:cuda|xpu|hip|mps|cpu|gpu|npu|tpu|rank|step|line|epoch|page|row|record|col|column|batch|item"
    r"|seed|size|max|min|port|count|token|tokens|length|version|split|train|test|ratio|level|layer)s?\d*"
)
_FILE: Final = re.compile(
    r"(?i).*\.(?:py|jsonl?|csv|txt|ya?ml|toml|parquet|arrow|sh|md|log|ipynb|cfg|ini|pt|bin|safetensors)"
)

HOST_NAMED: Final = re.compile(
    r"(?i)(?<![\w.@/-])(?:"
    rf"(?:[a-z0-9_-]{{1,63}}\.){{1,8}}(?:{_INNER})(?![\w-]|\.\w|\()"
    rf"|(?:[a-z0-9_-]{{1,63}}\.){{1,8}}(?:{_CLOUD})(?![\w-])"
    rf"|(?:[a-z0-9]{{1,30}}-){{0,4}}(?:{_ROLE})(?:-[a-z0-9]{{1,30}}){{0,4}}-?\d{{1,3}}(?![\w-])"
    rf"|(?:[a-z0-9]{{1,30}}-){{0,4}}(?:{_ROLE})-(?:{_PART})(?![\w-])"
    rf"|(?:[a-z0-9]{{1,30}}-){{1,4}}(?:{_SERVERS})(?![\w-])"
    r"|(?:cache|mq|srv|vm|host|store|lb)\d{1,3}(?![\w-])"
    r"|ip-\d{1,3}(?:-\d{1,3}){3}(?!\w)"
    # A pod of a ReplicaSet, by the letters that Kubernetes takes
    r"|[a-z0-9]{1,60}(?:-[a-z0-9]{1,60}){0,6}-[bcdf-hj-np-tv-xz2456789]{8,10}"
    r"-[bcdf-hj-np-tv-xz2456789]{5}(?![\w-])"
    r")"
    r"|(?<=@)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,8}\.(?:gserviceaccount\.com|internal|local|lan|corp)\b"
    r"|(?i:\b(?:host|hostname|server|peer|upstream|backend|replica)\s(?:name\s)?[\"'`(]?)"
    r"(?P<after>[a-z][a-z0-9]{0,30}(?:-[a-z0-9]{1,30}){1,6})(?![\w-])"
    r"|(?<![\w.@-])[a-z_][\w-]{0,31}@(?!v\d)[a-z][a-z0-9]{0,30}(?:-[a-z0-9]{1,30}){0,4}"
    r"(?<=\d)(?![\w.@-])"
    r"|\b(?:on|from|to|at) (?:the )?host "
    r"(?!(?:memory|side|ram|cpu|device|and|or|is|was|has|that)\b)[\"'`]?[a-z][\w-]{2,62}"
    r"|\blocalhost\b"
)
_DIGIT_OR_ROLE: Final = re.compile(rf"(?i)\d|(?:\A|-)(?:{_ROLE})(?:-|\Z)")

WEB_URL: Final = re.compile(
    r"(?i)\b(?:https?|wss?)://(?P<host>\[[0-9a-f:.]{2,45}\]|[\w.-]{1,253})(?P<port>:\d{1,5})?"
)


def is_address_v4(match: re.Match[str]) -> bool:
    """Whether four numbers are an address, and not a version."""
    numbers = match[0].partition("/")[0].split(".")
    if any(int(number) > 255 or (number[0] == "0" and number != "0") for number in numbers):
        return False
    text, start, end = match.string, match.start(), match.end()
    if _VERSION_BEFORE.search(text, max(0, start - 24), start):
        return False
    if numbers[0] in ("10", "100", "127", "169", "172", "192") or text[end : end + 1] == ":":
        return True
    return not (
        _PERHAPS_BEFORE.search(text, max(0, start - 8), start) or _PERHAPS_AFTER.match(text, end)
    )


def is_address_v6(match: re.Match[str]) -> bool:
    """Whether groups of hexadecimal digits are an address, and not a time or a slice."""
    text: str = match["address"]
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    if match["port"] and len(match["port"]) > 1:
        return True
    return sum(each.isalnum() for each in text) >= 4


def is_host_and_port(match: re.Match[str]) -> bool:
    """Whether a word and a number are a host and its port."""
    host, port = match["host"], match["port"]
    if _FILE.fullmatch(host) or _NO_HOST.fullmatch(host) or int(port) > 65535:
        return False
    if "." in host or re.fullmatch(rf"(?i)(?:{_ROLE}|localhost)\d*", host):
        return True
    if "-" in host and (len(port) >= 4 or _DIGIT_OR_ROLE.search(host)):
        return True
    before = _TO.search(match.string, max(0, match.start() - 24), match.start())
    return before is not None


def is_host(match: re.Match[str]) -> bool:
    """Whether a name is a host's inside, and not a word with a dash."""
    after = match["after"]
    return after is None or _DIGIT_OR_ROLE.search(after) is not None


def is_inner_url(match: re.Match[str]) -> bool:
    """Whether an address of the web leads to a host inside."""
    host = match["host"].strip("[]").rstrip(".")
    if match["port"] or "." not in host:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
