"""API tokens: who has one, what its role allows, until when, and when it was last used."""

from monitor.tokens.file import TokenFile, TokenLine, create_token, listed_tokens, revoke_token
from monitor.tokens.last_use import LastUse
from monitor.tokens.need import is_loopback, require_tokens
from monitor.tokens.principals import ANYONE, Principal, Role, Tokens, digest

__all__ = [
    "ANYONE",
    "LastUse",
    "Principal",
    "Role",
    "TokenFile",
    "TokenLine",
    "Tokens",
    "create_token",
    "digest",
    "is_loopback",
    "listed_tokens",
    "require_tokens",
    "revoke_token",
]
