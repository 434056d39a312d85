"""How often one token may ask and one address may fail to sign in, over HTTP and WebSocket."""

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterable

from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.throttle import Quota

SIGN_INS_PER_MINUTE = 10
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SUBSCRIBER_BITS = 64
"""What one IPv6 subscriber is given: each has more addresses than could ever be counted."""


class AccessLimits:
    """Counts within this process; safe to share between threads.

    Attributes:
        refused: How often somebody was kept out since the start, by reason: `requests` and
            `guesses` too many, or a `wrong_secret`.

    Args:
        clock: The wall clock.
        requests_per_minute: Of one API token, its sessions included.
        proxies: Networks of proxies that say for whom they speak.
        failures_per_minute: Wrong secrets from one address.
    """

    def __init__(
        self,
        clock: Clock,
        requests_per_minute: int,
        proxies: Iterable[str] = (),
        failures_per_minute: int = SIGN_INS_PER_MINUTE,
    ) -> None:
        self._clock = clock
        self._proxies = tuple(ipaddress.ip_network(text) for text in proxies)
        self._lock = threading.Lock()
        self.refused: Counter[str] = Counter()
        self._requests = Quota(requests_per_minute)
        self._failures = Quota(failures_per_minute)

    def address_of(self, peer: str, forwarded_for: str | None) -> str:
        """Return by what a client is counted; see `client_address`."""
        return client_address(peer, forwarded_for, self._proxies)

    def request_wait_s(self, token_hash: str) -> int:
        """Count a request of this token and return 0, or return the wait in s."""
        with self._lock:
            wait_ms = self._requests.take(token_hash, self._clock.now_ms())
            self.refused["requests"] += wait_ms > 0
            return _seconds(wait_ms)

    def sign_in_wait_s(self, address: str) -> int:
        """Return how long this address may not try to sign in; 0 = it may."""
        with self._lock:
            wait_ms = self._failures.wait_ms(address, self._clock.now_ms())
            self.refused["guesses"] += wait_ms > 0
            return _seconds(wait_ms)

    def failed(self, address: str) -> int:
        """Count a wrong secret and return 0, or return the wait in s of who had too many."""
        with self._lock:
            wait_ms = self._failures.take(address, self._clock.now_ms())
            self.refused["guesses" if wait_ms else "wrong_secret"] += 1
            return _seconds(wait_ms)


def _seconds(wait_ms: int) -> int:
    return -(-wait_ms // 1000)


def client_address(peer: str, forwarded_for: str | None, proxies: tuple[Network, ...]) -> str:
    """Return by what a client is counted: its address, or its network for IPv6.

    Args:
        peer: The other end of the connection.
        forwarded_for: The header `X-Forwarded-For`, believed only of our own proxies.
        proxies: Where those are.
    """
    hops = [hop.strip() for hop in (forwarded_for or "").split(",") if hop.strip()]
    # Each proxy adds whom it heard: the last that is none of ours is the client.
    for hop in (peer, *reversed(hops)):
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            return peer
        if not any(address in network for network in proxies):
            return _counted(address)
    return peer


def _counted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _SUBSCRIBER_BITS), strict=False))
