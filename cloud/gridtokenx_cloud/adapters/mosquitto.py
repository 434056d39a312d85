"""Passwords as mosquitto keeps them, so that enrolment needs no tool of the broker."""

import base64
import hashlib
import secrets

_ITERATIONS = 101
"""mosquitto's own default; a password of 256 random bits needs no slow hash."""
_SALT_BYTES = 12
_HASH_BYTES = 64


def new_password() -> str:
    """Return a password nobody can guess."""
    return secrets.token_urlsafe(32)


def password_line(user: str, password: str) -> str:
    """Return the line of `password_file` for *user*: PBKDF2 with SHA-512, type 7."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS, _HASH_BYTES)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${_ITERATIONS}$" + "$".join(parts)
