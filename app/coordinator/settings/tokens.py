"""Settings of the tokens that the gateway forwards."""

from dataclasses import dataclass
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import parse_seconds, parse_seconds_or_zero, parse_url
from app.scaikey.settings import JwksSettings


@dataclass(frozen=True, kw_only=True)
class TokenSettings(Section):
    """Forwarded tokens."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"
    TOGETHER: ClassVar[tuple[tuple[str, ...], ...]] = (("jwks_url", "token_issuer"),)

    jwks_url: str = parsed(
        "",
        "URL of the token issuer's public keys (JWKS). If it is set, calls that touch data need "
        "valid tokens; if not, the coordinator trusts the tenant that the gateway names.",
        parse_url,
        example="https://scaikey.example/.well-known/jwks.json",
    )
    token_issuer: str = parsed(
        "",
        "Required `iss` claim of tokens. Set it together with jwks_url.",
        str,
        example="https://scaikey.example",
    )
    token_leeway: float = parsed(
        5.0,
        "Tolerated clock difference between the issuer and this machine.",
        parse_seconds_or_zero,
    )
    jwks_max_age: float = parsed(300.0, "Maximum age of the issuer's keys.", parse_seconds)
    jwks_cooldown: float = parsed(
        10.0,
        "Minimum time between two fetches of the keys, for an unknown `kid` or after a failure.",
        parse_seconds,
    )
    jwks_stale_limit: float = parsed(
        4 * 3600.0,
        "How long the keys are used beyond jwks_max_age while they cannot be fetched.",
        parse_seconds_or_zero,
    )

    @property
    def jwks(self) -> JwksSettings:
        """The settings of the issuer's keys."""
        return JwksSettings(
            url=self.jwks_url,
            ttl=self.jwks_max_age,
            cooldown=self.jwks_cooldown,
            stale_limit=self.jwks_stale_limit,
        )
