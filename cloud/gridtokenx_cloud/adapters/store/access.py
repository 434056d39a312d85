"""API tokens, browser sessions and tickets: only hashes are kept, and each can be taken back."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.events import Principal

TOKEN_PREFIX = "gtx_"  # noqa: S105 - a prefix by which leaked tokens are found, no secret
TICKET_TTL_S = 30
ROLES = ("owner", "viewer", "operator", "admin")
_KEPT_AFTER_EXPIRY_MS = 3_600_000
_MAX_LABEL = 100

_BY_TOKEN = """
    SELECT t.role, t.user_id, t.label, t.token_hash, NULL AS session_hash, t.expires_at_ms
    FROM api_tokens t
    WHERE t.token_hash = :hash AND t.revoked_at_ms IS NULL
        AND (t.expires_at_ms IS NULL OR t.expires_at_ms > :now)
"""  # noqa: S105 - SQL, no secret
# A session never outlives its token: its end is the earlier of both, and revoking deletes it.
_BY_SESSION = """
    SELECT t.role, t.user_id, t.label, t.token_hash, s.session_hash, s.expires_at_ms
    FROM sessions s JOIN api_tokens t USING (token_hash)
    WHERE s.session_hash = :hash AND s.expires_at_ms > :now AND t.revoked_at_ms IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """An API token without its secret."""

    label: str
    role: str
    user_id: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class SqlAccess:
    """Who may do what. Secrets have 256 bits, so a plain SHA-256 of them is enough to keep."""

    def __init__(self, database: Database, clock: Clock, session_ttl_s: int = 43_200) -> None:
        self._database = database
        self._clock = clock
        self._session_ttl_ms = session_ttl_s * 1000

    def create_token(
        self, label: str, role: str, user_id: str | None, ttl_s: int | None, actor: str
    ) -> str:
        """Make an API token and return it; it cannot be shown again.

        Raises:
            ValidationError: Label taken or unusable, unknown role, an owner's token without its
                user or a staff token with one.
            NotFoundError: No such user.
        """
        _check_token(label, role, user_id)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now_ms = self._clock.now_ms()
        expires_at_ms = None if ttl_s is None else now_ms + ttl_s * 1000
        with self._database.transaction() as tx:
            _check_against_store(tx, label, user_id)
            tx.execute(
                "INSERT INTO api_tokens"
                " (token_hash, label, role, user_id, created_at_ms, expires_at_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (_hash(token), label, role, user_id, now_ms, expires_at_ms),
            )
            append_audit(
                tx,
                at_ms=now_ms,
                actor=actor,
                action="api_token_created",
                subject=label,
                detail={"role": role, "user_id": user_id, "expires_at_ms": expires_at_ms},
            )
        return token

    def list_tokens(self) -> list[TokenInfo]:
        """Return all API tokens, the oldest first."""
        with reading(self._database) as connection:
            rows = connection.execute(
                "SELECT label, role, user_id, created_at_ms, expires_at_ms, revoked_at_ms"
                " FROM api_tokens ORDER BY created_at_ms, label"
            ).fetchall()
        return [TokenInfo(**dict(row)) for row in rows]

    def revoke_token(self, label: str, actor: str) -> None:
        """End a token with its sessions; open connections close within a second.

        Raises:
            NotFoundError: No token of that label that could still be used.
        """
        now_ms = self._clock.now_ms()
        with self._database.transaction() as tx:
            row = tx.execute(
                "UPDATE api_tokens SET revoked_at_ms = ?"
                " WHERE label = ? AND revoked_at_ms IS NULL RETURNING token_hash",
                (now_ms, label),
            ).fetchone()
            if row is None:
                raise NotFoundError(
                    f"no live API token {label!r}; `gtx-cloud api-token list` shows them"
                )
            for table in ("sessions", "ws_tickets"):
                tx.execute(f"DELETE FROM {table} WHERE token_hash = ?", (row["token_hash"],))  # noqa: S608 - constants
            append_audit(
                tx, at_ms=now_ms, actor=actor, action="api_token_revoked", subject=label, detail={}
            )

    def authenticate(self, token: str) -> Principal | None:
        """Return whose API token this is; None for a revoked, expired or unknown one."""
        return self._principal(_BY_TOKEN, _hash(token))

    def _principal(self, statement: str, secret_hash: str) -> Principal | None:
        with reading(self._database) as connection:
            row = connection.execute(
                statement, {"hash": secret_hash, "now": self._clock.now_ms()}
            ).fetchone()
        return None if row is None else Principal(**dict(row))

    def open_session(self, token: str, address: str = "") -> tuple[str, Principal] | None:
        """Exchange an API token for a browser session; return its secret and who it is.

        Either way it is in the audit log; *address* says from where.
        """
        principal = self.authenticate(token)
        if principal is None:
            with self._database.transaction() as tx:
                self._audit(tx, "anybody", "sign_in_failed", address)
            return None
        session = secrets.token_urlsafe(32)
        now_ms = self._clock.now_ms()
        ends = [now_ms + self._session_ttl_ms, principal.expires_at_ms]
        expires_at_ms = min(moment for moment in ends if moment is not None)
        with self._database.transaction() as tx:
            tx.execute(
                "DELETE FROM sessions WHERE expires_at_ms < ?", (now_ms - _KEPT_AFTER_EXPIRY_MS,)
            )
            tx.execute(
                "INSERT INTO sessions (session_hash, token_hash, expires_at_ms) VALUES (?, ?, ?)",
                (_hash(session), principal.token_hash, expires_at_ms),
            )
            self._audit(tx, f"token:{principal.label}", "sign_in", address)
        found = self.session(session)
        return None if found is None else (session, found)

    def session(self, session: str) -> Principal | None:
        """Return whose browser session this is; None for one that has ended."""
        return self._principal(_BY_SESSION, _hash(session))

    def close_session(self, session: str) -> None:
        """Sign out; tickets of the session die with it."""
        principal = self.session(session)
        with self._database.transaction() as tx:
            if principal is not None:
                self._audit(tx, f"token:{principal.label}", "sign_out", "")
            for table in ("ws_tickets", "sessions"):
                tx.execute(f"DELETE FROM {table} WHERE session_hash = ?", (_hash(session),))  # noqa: S608 - constants

    def _audit(self, tx: Connection, actor: str, action: str, address: str) -> None:
        append_audit(
            tx,
            at_ms=self._clock.now_ms(),
            actor=actor,
            action=action,
            subject="session",
            detail={"address": address} if address else {},
        )

    def issue_ticket(self, principal: Principal) -> str:
        """Return a ticket for one connection to the events server, good for `TICKET_TTL_S`."""
        ticket = secrets.token_urlsafe(32)
        now_ms = self._clock.now_ms()
        with self._database.transaction() as tx:
            tx.execute("DELETE FROM ws_tickets WHERE expires_at_ms <= ?", (now_ms,))
            tx.execute(
                "INSERT INTO ws_tickets (ticket_hash, session_hash, token_hash, expires_at_ms)"
                " VALUES (?, ?, ?, ?)",
                (
                    _hash(ticket),
                    principal.session_hash,
                    principal.token_hash,
                    now_ms + TICKET_TTL_S * 1000,
                ),
            )
        return ticket

    def redeem_ticket(self, ticket: str) -> Principal | None:
        """Return whose ticket this is and use it up; None for a used, old or unknown one."""
        with self._database.transaction() as tx:
            row = tx.execute(
                "DELETE FROM ws_tickets WHERE ticket_hash = ?"
                " RETURNING session_hash, token_hash, expires_at_ms",
                (_hash(ticket),),
            ).fetchone()
        if row is None or row["expires_at_ms"] <= self._clock.now_ms():
            return None
        if row["session_hash"] is not None:
            return self._principal(_BY_SESSION, row["session_hash"])
        return self._principal(_BY_TOKEN, row["token_hash"])

    def ended(
        self, credentials: Iterable[tuple[str, str | None]]
    ) -> frozenset[tuple[str, str | None]]:
        """Return those (token, session) pairs that were revoked or signed out."""
        with reading(self._database) as connection:
            rows = connection.execute(
                "SELECT c.token, c.session"  # noqa: S608 - our own columns
                f" FROM {connection.dialect.rows('token', 'session')} c"
                " WHERE NOT EXISTS (SELECT 1 FROM api_tokens t"
                "   WHERE t.token_hash = c.token AND t.revoked_at_ms IS NULL)"
                " OR (c.session IS NOT NULL AND NOT EXISTS (SELECT 1"
                "   FROM sessions s WHERE s.session_hash = c.session))",
                (json.dumps(list(credentials)),),
            ).fetchall()
        return frozenset((row[0], row[1]) for row in rows)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_token(label: str, role: str, user_id: str | None) -> None:
    if not label.isprintable() or not 0 < len(label.strip()) <= _MAX_LABEL:
        raise ValidationError(
            "InvalidLabel", f"label {label[:40]!r}: give 1 to {_MAX_LABEL} printable characters"
        )
    if role not in ROLES:
        raise ValidationError("InvalidRole", f"role {role!r}: choose one of {', '.join(ROLES)}")
    if (role == "owner") != (user_id is not None):
        raise ValidationError(
            "InvalidRole",
            f"role {role}: name the user of an owner's token, and of that only, or another role",
        )


def _check_against_store(tx: Connection, label: str, user_id: str | None) -> None:
    if tx.execute("SELECT 1 FROM api_tokens WHERE label = ?", (label,)).fetchone():
        raise ValidationError("LabelTaken", f"label {label!r} is in use; choose another")
    if user_id is not None:
        known = tx.execute("SELECT 1 FROM users WHERE user_id = ?", (user_id,)).fetchone()
        if known is None:
            raise NotFoundError(f"no user {user_id!r}; `gtx-cloud user list` shows them")
