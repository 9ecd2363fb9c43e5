"""moto's server, in a process of its own: a bucket, and one user who may use it.

Says on stdout, as one line of JSON, where it listens and that user's credentials.
"""

import json
import sys
import urllib.request
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "drive"


def main() -> None:
    """Serve until stdin ends."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"

    def client(service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="first",
            aws_secret_access_key="first",
        )

    client("s3").create_bucket(Bucket=BUCKET)
    iam = client("iam")
    iam.create_user(UserName="user")
    rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [rule]}
    iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="user")["AccessKey"]
    # From now on, signatures are checked.
    headers = {"Content-Type": "text/plain"}
    url = f"{endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(url, data=b"0", headers=headers, method="POST")
    urllib.request.urlopen(request).close()
    about = {"port": port, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    sys.stdout.write(json.dumps(about) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
