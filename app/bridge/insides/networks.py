"""What connections, proxies and gRPC say, and the addresses that are written for them."""

from typing import Final

from app.bridge.insides.classes import any_of

CONNECTIONS: Final = any_of(
    "connection",
    (
        r"(?i)\b(?:jdbc:|(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle|sqlite|rediss?|amqps?"
        r"|mongodb|clickhouse|cockroachdb|nats|kafka|etcd|ldaps?|smtps?|memcached|bolt|neo4j"
        r"|cassandra|grpcs?|tcp|udp|tls|wss?|sftp|ftps?|ssh|nfs|smb|cifs|iscsi|rbd|ceph"
        r"|docker|containerd|cri-o|consul|vault|zk|zookeeper|thrift|rpc"
        r"|unix)(?:\+[a-z0-9]{1,20}){0,3}://)"
    ),
    r"(?i)\b(?:s3[an]?|gs|gcs|abfss?|wasbs?|adl|hdfs|webhdfs|oss|cos|swift|minio|b2|r2|dbfs)://",
    (
        r"(?i)\b(?:host|hostaddr|server|data source)\s*=\s*\S+[\s;]+[\s\S]{0,300}?\b(?:dbname"
        r"|database|user|uid|port|initial catalog)\s*="
    ),
    r"(?i)\bauthorization:\s",
    r"\b(?:ipv4|ipv6|unix|unix-abstract|vsock|dns|xds):(?=[\w/@.\[%-])",
    # The network's own words
    (
        r"\bE(?:CONNREFUSED|CONNRESET|TIMEDOUT|HOSTUNREACH|NETUNREACH|PIPE|AI_\w+|NOTFOUND"
        r"|MFILE|ADDRINUSE)\b"
    ),
    r"\b(?:dial|read|write|listen) (?:tcp|udp|unix)\b",
    r"\bi/o timeout\b",
    r"\blookup \S+ on \S+",
    r": no such host\b",
    r"\b(?:getaddrinfo|gethostbyname|getsockopt|setsockopt|epoll\w*|recvmsg|sendmsg)\b",
    r"\bname or service not known\b",
    r"\b[Tt]emporary failure in name resolution\b",
    r"\b[Nn]odename nor servname\b",
    r"\b[Nn]ame or service not known\b",
    r"\bNXDOMAIN\b",
    r"\bSERVFAIL\b",
    r"\bNo route to host\b",
    r"\bNetwork is unreachable\b",
    r"\bTransport endpoint\b",
    r"\[Errno (?:9|32|98|99|10[0-9]|11[0-5]|-\d)\]",
    r"\b[Cc]onnect(?:ion)? (?:to|with) \S+ (?:failed|refused|timed out|was refused|lost)",
    r"\bx509: ",
    r"\bCERTIFICATE_VERIFY_FAILED\b",
    r"\bSSL(?:_ERROR|V3_\w+| routines|EOF|: )\w*",
    r"\btls: \w",
    r"\bTLS handshake\b",
    r"\bself[- ]signed certificate\b",
    r"\bBoringSSL\b",
    r"\bOpenSSL\b",
    r"\bssl\.[a-z]+:\d+",
    r"\bMax retries exceeded with url\b",
    r"\bHTTPS?ConnectionPool\b",
    r"\burllib3\b",
    r"\bNewConnection\w+",
    r"\bClientConnector\w*",
    r"\bServerDisconnected\w*",
    r"\bCannot connect to host\b",
    r"\baiohttp\b",
    # gRPC and HTTP/2
    r"\bgRPC (?:channel|error|status|call|server|client|core)\b",
    r"\bRST_STREAM\b",
    r"\bHTTP/2\b",
    r"\bGOAWAY\b",
    r"\bENHANCE_YOUR_CALM\b",
    r"\btoo_many_pings\b",
    r"\bhttp2\b",
    r"\bStatusCode\.[A-Z]",
    r"\bdebug_error_string\b",
    r"\bgrpc[_-](?:status|message|core|c|python)\b",
    r"\bAioRpc\w*",
    r"\brpc error: ",
    r"\btransport is closing\b",
    r"\bSocket closed\b",
    r"\bStream removed\b",
    r"\bsubchannel\b",
    r"\bfailed to connect to (?:all addresses|remote host)\b",
    r"\bkeepalive watchdog\b",
    r"\bEOF received\b",
    r"\bio\.grpc\b",
    r"\bProtobuf\w* (?:parsing|error)\b",
    r"\bno healthy upstream\b",
    # Proxies
    r"\bupstream (?:connect error|timed out|prematurely|sent|request timeout|server)\b",
    r"\bwhile (?:reading response header|connecting to|sending to client|SSL handshaking)\b",
    r"\b(?:nginx|openresty|envoy|haproxy|traefik|varnish|istio\w*|caddy|squid)\b(?:/[\d.]+)?",
    r"(?i)<(?:html|head|body|center|title|h1|!doctype)\b",
    r"(?i)\bbad gateway\b",
)
