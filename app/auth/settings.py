"""Settings of identity."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, optional, optional_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(Section):
    """Who may call."""

    PREFIX: ClassVar[str] = "SCAIMIND_AUTH_"
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("issuer", "jwks_url"),
        ("token_url", "client_id", "client_secret"),
    )

    key_ttl: float = setting(
        3.0,
        "How old an answer about an API key may be; bounds how late a revocation is felt.",
        at_least=0,
        at_most=5,
    )
    key_cache_size: int = setting(
        10_000, "Answers about API keys that are remembered.", at_least=1, at_most=10_000_000
    )
    recheck_interval: float = setting(
        2.0,
        "How often the API keys of open streams are looked up again; bounds how late a "
        "revocation is felt by streams where PostgreSQL's NOTIFY does not arrive.",
        at_least=0.05,
        at_most=4,
    )
    unchecked_limit: float = setting(
        120.0, "How long streams stay open while their API keys cannot be looked up.", at_least=1
    )
    issuer: str = optional(
        "Who issues the JWTs that are accepted: their iss. Without it, no JWT is accepted."
    )
    jwks_url: str = optional("Where the issuer's public keys are.", url=True)
    audience: str = setting("scaimind", "Whom a JWT must be meant for: its aud.")
    leeway: int = setting(
        30,
        "How far the issuer's clock may be off, when exp and nbf are looked at.",
        at_least=0,
        at_most=300,
    )
    jwks_ttl: float = setting(600.0, "How old the issuer's keys may become.", at_least=1)
    jwks_cooldown: float = setting(
        10.0,
        "Shortest time between two fetches of the keys, for an unknown kid or after a failure.",
        at_least=0.1,
    )
    jwks_stale_limit: float = setting(
        14_400.0,
        "How long keys are used beyond that age while they cannot be fetched.",
        at_least=0,
    )
    http_timeout: float = setting(
        5.0, "How long the issuer may take to answer.", at_least=0.1, at_most=60
    )
    token_url: str = optional(
        "Where tokens for ScaiDrive and ScaiAtlas are got (RFC 8693). Without it, none are sent.",
        url=True,
    )
    client_id: str = optional("Who the gateway is at token_url.")
    client_secret: str = optional_secret("The gateway's secret at token_url.")
    drive_audience: str = setting("scaidrive", "Audience of the tokens for ScaiDrive.")
    atlas_audience: str = setting("scaiatlas", "Audience of the tokens for ScaiAtlas.")
    exchange_margin: float = setting(
        30.0, "How long before its end a token is no longer sent.", at_least=0
    )
    exchange_cache_size: int = setting(
        10_000, "Tokens that are remembered.", at_least=1, at_most=1_000_000
    )
