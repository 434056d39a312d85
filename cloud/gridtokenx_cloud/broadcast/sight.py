"""Who may follow which stream, see which events of it, and how many a minute; pure."""

from gridtokenx_cloud.event_protocol import EVERYTHING, EventSubscription
from gridtokenx_cloud.event_queue import TokenBucket
from gridtokenx_cloud.events import ADMIN_STREAM, BatchMintingCompleted, from_json, user_stream
from gridtokenx_cloud.ports.events import ANONYMOUS, OutboxEvent, Principal

_PUBLIC_TYPE = BatchMintingCompleted.type
"""Its totals stand on the chain for everybody to read, and it names no owner."""


def streams_of(principal: Principal) -> dict[str, str]:
    """Return label -> stream for all a principal may follow; the client never names a user."""
    if principal.user_id is not None:
        return {"me": user_stream(principal.user_id)}
    return {"admin" if principal.sees_all else "public": ADMIN_STREAM}


def wanted(principal: Principal, subscription: EventSubscription, event: OutboxEvent) -> bool:
    """Return whether an event of one of its streams is sent: a filter never widens what is seen."""
    seen = principal.user_id is not None or principal.sees_all or event.type == _PUBLIC_TYPE
    # Decoding costs more than sending; without a filter there is nothing to decode for.
    return seen and (subscription is EVERYTHING or subscription.matches(from_json(event.body)))


def allowance(principal: Principal, per_minute: int) -> TokenBucket:
    """Return the bucket of one connection; *per_minute* is for those who did not sign in."""
    factor = 100 if principal.sees_all else 1 if principal.role == ANONYMOUS else 10
    return TokenBucket(factor * per_minute / 60, factor * per_minute)
