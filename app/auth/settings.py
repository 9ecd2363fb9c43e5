"""Settings of authentication and token exchange."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, optional, optional_secret, setting
from app.scaikey.settings import JwksSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(Section):
    """Authentication."""

    PREFIX: ClassVar[str] = "SCAIMIND_AUTH_"
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("issuer", "jwks_url"),
        ("token_url", "client_id", "client_secret"),
    )

    key_ttl: float = setting(
        3.0,
        "Maximum age of a cached API-key lookup, and so of a revocation's delay.",
        at_least=0,
        at_most=5,
    )
    key_cache_size: int = setting(
        10_000, "Maximum number of cached API-key lookups.", at_least=1, at_most=10_000_000
    )
    recheck_interval: float = setting(
        2.0,
        "How often the API keys of open streams are checked. Limits the delay with which a "
        "revocation ends streams if PostgreSQL's NOTIFY does not arrive.",
        at_least=0.05,
        at_most=4,
    )
    unchecked_limit: float = setting(
        120.0, "How long streams stay open while their API keys cannot be checked.", at_least=1
    )
    issuer: str = optional("Required `iss` claim of JWTs. If it is not set, no JWT is accepted.")
    jwks_url: str = optional("URL of the issuer's public keys (JWKS).", url=True)
    audience: str = setting("scaimind", "Required `aud` claim of JWTs.")
    leeway: int = setting(
        30,
        "Tolerated clock difference when `exp` and `nbf` are checked. A token counts until this "
        "long after its `exp`: for requests, open streams and stream tickets alike.",
        at_least=0,
        at_most=300,
    )
    jwks_ttl: float = setting(600.0, "Maximum age of the cached issuer keys.", at_least=1)
    jwks_cooldown: float = setting(
        10.0,
        "Minimum time between two fetches of the keys, for an unknown `kid` or after a failure.",
        at_least=0.1,
    )
    jwks_stale_limit: float = setting(
        14_400.0,
        "How long the keys are used beyond their maximum age while they cannot be fetched.",
        at_least=0,
    )
    http_timeout: float = setting(
        5.0, "Timeout of requests to the issuer.", at_least=0.1, at_most=60
    )
    token_url: str = optional(
        "URL of the token exchange (RFC 8693) for ScaiDrive and ScaiAtlas. If it is not set, no "
        "tokens are sent.",
        url=True,
    )
    client_id: str = optional("Client id of the gateway at the token exchange.")
    client_secret: str = optional_secret("Client secret of the gateway at the token exchange.")
    drive_audience: str = setting("scaidrive", "Audience of the tokens for ScaiDrive.")
    atlas_audience: str = setting("scaiatlas", "Audience of the tokens for ScaiAtlas.")
    exchange_margin: float = setting(
        30.0, "Remaining lifetime below which a token is no longer sent.", at_least=0
    )
    exchange_cache_size: int = setting(
        10_000, "Maximum number of cached tokens.", at_least=1, at_most=1_000_000
    )

    @property
    def jwks(self) -> JwksSettings:
        """The settings of the issuer's keys."""
        return JwksSettings(
            url=self.jwks_url,
            ttl=self.jwks_ttl,
            cooldown=self.jwks_cooldown,
            stale_limit=self.jwks_stale_limit,
        )
