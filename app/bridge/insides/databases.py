"""What databases, caches, queues and directories answer, and their drivers."""

from typing import Final

from app.bridge.insides.classes import any_of

DATABASES: Final = any_of(
    "database",
    # Any
    r"\bSQLSTATE\b",
    r"(?i)\bviolates (?:unique|foreign key|check|not-null|exclusion|row-level)\b",
    r"(?i)\b(?:unique|foreign key|not null|check) constraint failed\b",
    r"(?i)\bdeadlock (?:detected|found)\b",
    r"\bHikariPool",
    r"\bc3p0\b",
    r"\bpgbouncer\b",
    r"\bQueuePool\b",
    r"\bconnection pool (?:is )?(?:exhausted|timeout)",
    r"(?i)\bduplicate key (?:value|error)\b",
    # By their names
    r"\b[Pp]ostgre(?:s|SQL|sql)\b",
    r"\b(?:etcd|[Mm]in[Ii][Oo]|Cassandra|Elasticsearch|OpenSearch|DynamoDB|CockroachDB|ClickHouse)\b",
    # PostgreSQL and its drivers
    r"\b(?:FATAL|PANIC|DETAIL|HINT|CONTEXT|ERROR):  \S",
    r"(?i)\bsyntax error at or near\b",
    (
        r"(?i)\b(?:relation|table|role|database|schema|function|sequence|type|extension"
        r"|operator) \"[^\"\n]{1,200}\" (?:does not exist|already exists|is not)"
    ),
    r"(?i)\bcolumn \"?[\w.]{1,200}\"? of relation\b",
    r"(?i)\bcolumn \"?\w{1,100}\.\w{1,100}\"? (?:does not exist|must appear)",
    (
        r"(?i)\bpermission denied for (?:table|relation|schema|sequence|database|function"
        r"|column|view)\b"
    ),
    r"(?i)\bmust be owner of (?:table|relation|schema|database)\b",
    r"\bpassword authentication failed\b",
    r"\bpg_hba\.conf\b",
    r"\bno password supplied\b",
    r"\btoo many (?:clients|connections)(?: already| for (?:role|database))",
    r"\bremaining connection slots\b",
    r"\b(?:canceling statement|terminating connection) due to\b",
    r"\bserver closed the connection unexpectedly\b",
    r"\bSSL connection has been closed\b",
    (
        r"\bcould not (?:serialize access|obtain lock|connect to server|translate host name"
        r"|extend file|resize shared|write to file|open relation|fork new process"
        r"|access status of)"
    ),
    r"\bconnection to server (?:at|on|was lost)\b",
    r"\bconnection (?:already|is) closed\b",
    r"\bthe database system is\b",
    r"\bin a read-only transaction\b",
    r"\bidle.in.transaction\b",
    r"\bcurrent transaction is aborted\b",
    r"\btransaction (?:rollback|was rolled back)\b",
    r"\binvalid input syntax for\b",
    r"\bvalue too long for type\b",
    r"\bnumeric field overflow\b",
    r"\bprepared (?:statement|transaction)\b",
    r"\bmax_(?:locks_per_transaction|connections|wal_\w+)\b",
    r"\bpg_\w{2,60}",
    r"\bpsycopg\w?\b",
    r"\basyncpg\b",
    r"\blibpq\b",
    r"\bsqlalche\w*",
    r"\bpgproto\b",
    r"\btuple concurrently\b",
    r"\bnull value in column\b",
    # MySQL, MariaDB
    r"\bERROR \d{4} \([0-9A-Z]{5}\)",
    r"^\(\d{4}, ['\"]",
    r"\bAccess denied for user\b",
    r"\bMySQL\b",
    r"\bMariaDB\b",
    r"\bInnoDB\b",
    r"\bpymysql\b",
    r"\bmysqlclient\b",
    r"(?i)\bunknown (?:database|table) '",
    r"(?i)\bunknown column '[^'\n]{1,200}' in\b",
    r"(?i)\btable '[\w.$-]{1,200}' (?:doesn't exist|already exists|is (?:full|read only|marked))",
    r"\bDuplicate entry '",
    r"\bLock wait timeout\b",
    r"\byou have an error in your SQL\b",
    r"\bMax_connections\b",
    r"\bThe table '[^'\n]{1,100}' is full\b",
    r"\bData too long for column\b",
    # SQLite
    r"(?i)\bno such (?:table|index|view|trigger|collation)\b: ",
    r"(?i)\bno such column: \w+\.\w",
    r"(?i)\bnear \"[^\"\n]{0,200}\": syntax error",
    r"\bSQLITE_[A-Z]+",
    r"\bsqlite3?\b",
    (
        r"\bdatabase (?:is locked|table is locked|schema (?:is locked|has changed)|disk image"
        r"|or disk is full)"
    ),
    r"\battempt to write a readonly\b",
    r"\bunable to open database\b",
    r"\bdisk I/O error\b",
    # Oracle, SQL Server, Cassandra, ClickHouse, Elasticsearch, MongoDB
    r"\b(?:ORA|TNS|PLS)-\d{5}\b",
    r"\bMsg \d+, Level \d+",
    r"\bODBC (?:Driver|SQL)",
    r"\bLogin failed for user\b",
    r"\bCannot open database\b",
    r"\bInvalid object name\b",
    r"\bDB::Exception\b",
    r"\bCQL\b",
    r"\bNoHostAvailable\b",
    r"\bOperationTimedOut\b",
    r"\b\w{1,60}_exception\b",
    r"\bshards? failed\b",
    r"\bblocked by: \[",
    r"\bE11000\b",
    r"\bMongo\w*",
    r"\bNotWritablePrimary\b",
    r"\bTopology Description\b",
    r"\breplica set\b",
    # Redis, Kafka, RabbitMQ, etcd, ZooKeeper, NATS
    (
        r"\b(?:WRONGTYPE|NOAUTH|WRONGPASS|NOPERM|READONLY|CLUSTERDOWN|MASTERDOWN|MISCONF"
        r"|NOSCRIPT|CROSSSLOT|BUSYGROUP|NOREPLICAS|TRYAGAIN|EXECABORT) "
    ),
    r"\b(?:MOVED|ASK) \d+ ",
    r"\bOOM command\b",
    r"\bLOADING Redis\b",
    r"\bERR (?:unknown|wrong|max|value|syntax)",
    r"\b[Rr]edis\b",
    r"\bmaxmemory\b",
    r"\bmemcached\b",
    r"\bvalkey\b",
    r"\b[Kk]afka\w*",
    r"\brdkafka\b",
    r"\bNOT_LEADER\w*",
    r"\bLEADER_NOT_AVAILABLE\b",
    r"\b(?:topic|consumer) group\b",
    r"\bRabbitMQ\b",
    r"\b(?:PRECONDITION_FAILED|ACCESS_REFUSED|RESOURCE_LOCKED|CONNECTION_FORCED) - ",
    r"\betcdserver\b",
    r"\bmvcc: ",
    r"\braft(?:_\w+)?: ",
    r"\bZooKeeper\b",
    r"\bKeeperErrorCode\b",
    r"\bNATS\b",
    # LDAP
    r"(?i)\b(?:cn|ou|dc|uid)=[^,=\n]{1,100},\s?(?:cn|ou|dc|o)=",
    r"(?i)\bLDAP\b",
)
