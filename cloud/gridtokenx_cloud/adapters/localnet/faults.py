"""Faults that a test or a demo can switch on; all of them happen on real clusters."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class Faults:
    """What goes wrong, and how often; the defaults are a healthy cluster.

    A name that starts with a verb counts down: 2 means the next two sends. `..._every` = n hits
    every n-th request (1 = all, 0 = none). The others hold until they are set back.
    """

    lose_sends: int = 0
    """The connection closes before the node looked at the transaction."""
    lose_replies: int = 0
    """The transaction is taken, and the connection closes instead of an answer."""
    drop_silently: int = 0
    """The node answers with the signature and forgets the transaction."""
    land_late_blocks: int = 0
    """Transactions wait this many more blocks."""
    land_in_last_valid_block: bool = False
    """Transactions land in the very last block that may take their blockhash."""
    status_lag_blocks: int = 0
    """`getSignatureStatuses` is answered by a node this many blocks behind."""
    behind_blocks: int = 0
    """The node is this many blocks behind in everything it says."""
    account_lag_blocks: int = 0
    """Account, balance and supply reads are answered by a node this many blocks behind."""
    hide_statuses: bool = False
    """A hole in the status index: `getSignatureStatuses` never finds anything."""
    hide_history: bool = False
    """The node keeps no history: no transactions, addresses or statuses beyond the cache."""
    http_429_every: int = 0
    """Answer HTTP 429."""
    rpc_429_every: int = 0
    """Answer HTTP 200 with error code 429."""
    v1: bool = True
    """Take version 1 transactions."""
    rent_lamports_per_byte: int = 0
    """Change the rent; 0 keeps it as it is."""
    _requests: int = 0

    def take(self, name: str) -> bool:
        """Use up one of a counted fault; false when none is left."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0

    def too_many_requests(self) -> str:
        """Count a request; return "http" or "rpc" when it has to be answered with 429."""
        self._requests += 1
        for kind, every in (("http", self.http_429_every), ("rpc", self.rpc_429_every)):
            if every and self._requests % every == 0:
                return kind
        return ""

    def update(self, values: dict[str, Any]) -> None:
        """Set faults by name.

        Raises:
            ValueError: A name is unknown, or a value has the wrong type.
        """
        known = {field.name: field.type for field in fields(self) if field.name[0] != "_"}
        for name, value in values.items():
            if type(value) is not known.get(name):
                raise ValueError(f"no fault {name} = {value!r}; known: {', '.join(known)}")
        for name, value in values.items():
            setattr(self, name, value)
