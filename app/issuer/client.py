"""Asks an issuer for a token, as a person at a terminal does."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

_SECONDS = 10


class NoToken(Exception):
    """The issuer gave no token: one line that says why."""


def exchange(
    issuer_url: str, *, client_id: str, client_secret: str, api_key: str, audience: str
) -> tuple[str, int]:
    """Exchange an API key (RFC 8693): a token, and the seconds that it lives. Raises `NoToken`."""
    client = f"{urllib.parse.quote_plus(client_id)}:{urllib.parse.quote_plus(client_secret)}"
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:scaigrid:params:oauth:token-type:api-key",
        "subject_token": api_key,
        "audience": audience,
    }
    request = urllib.request.Request(
        f"{issuer_url}/oauth2/token",
        data=urllib.parse.urlencode(form).encode(),
        headers={"Authorization": f"Basic {base64.b64encode(client.encode()).decode()}"},
    )
    # No proxy: what is sent is for the issuer alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            body = json.load(answer)
        return str(body["access_token"]), int(body["expires_in"])
    except urllib.error.HTTPError as error:
        with error:
            raise NoToken(f"The issuer refused: {_description(error.read(8192))}") from None
    except OSError:
        raise NoToken(f"The issuer at {issuer_url} cannot be reached. Is it running?") from None
    except (ValueError, KeyError, TypeError):
        raise NoToken(f"The server at {issuer_url} is not a token issuer.") from None


def _description(body: bytes) -> str:
    try:
        return str(json.loads(body)["error_description"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
