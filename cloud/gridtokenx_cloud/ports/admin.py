"""What operators do through the HTTP API: the same deeds as by the commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gridtokenx_cloud.verify import EpochPolicy, ReadingRules
from gridtokenx_cloud.waiting import Pace
from gridtokenx_wire.claim import Claim

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an operator adds to a gateway's claim.

    Attributes:
        rated_power_w: For meters whose claim does not say; None = each must say it.
        epoch_policy: Which new counts are taken without an operator's word.
    """

    user_id: str
    name: str
    rated_power_w: int | None
    epoch_policy: EpochPolicy


@dataclass(frozen=True, slots=True)
class WalletSeen:
    """What the chain knows of a wallet that may be enrolled.

    Attributes:
        on_chain: `wallet` = a person's; `new` = nothing yet, as a fresh one is; `not_asked` = no
            node is configured, or none answered.
        warning: What the operator should know.
    """

    on_chain: Literal["wallet", "new", "not_asked"]
    warning: str | None = None


class Registry(Protocol):
    """Who may send what, and for whom it counts."""

    def users(self) -> Sequence[Row]:
        """Return every owner."""
        ...

    def gateways(self) -> Sequence[Row]:
        """Return every gateway."""
        ...

    def meters(self) -> Sequence[Row]:
        """Return every meter with its newest epoch."""
        ...

    def add_user(self, user_id: str, wallet: str) -> None:
        """Enrol an owner."""
        ...

    def add_gateway(self, gateway_id: str, name: str) -> None:
        """Enrol a gateway by its public key."""
        ...

    def revoke_gateway(self, gateway_id: str) -> None:
        """Take no further line of this gateway."""
        ...

    def add_meter(
        self,
        meter_id: str,
        *,
        gateway_id: str,
        user_id: str,
        rated_power_w: int,
        resolution_wh: int,
        epoch_policy: EpochPolicy,
    ) -> None:
        """Enrol a meter behind a gateway, for an owner."""
        ...


class Moves(Protocol):
    """What happens to gateways and meters beyond their first enrolment."""

    def accept(self, claim: Claim, wanted: Enrolment, token: str | None) -> list[str]:
        """Enrol a claim's gateway and its meters; return the ids of the new ones."""
        ...

    def rotate(self, gateway_id: str, successor_id: str, until_ms: int) -> int:
        """Give a gateway's meters to its new key; return how many."""
        ...

    def move_to_gateway(self, meter_id: str, gateway_id: str, from_ms: int) -> None:
        """Let another gateway read the meter from a moment on."""
        ...

    def change_owner(self, meter_id: str, user_id: str, from_ms: int) -> None:
        """Let the meter's readings from a moment on be another owner's."""
        ...

    def set_wallet(self, user_id: str, wallet: str) -> None:
        """Send an owner's tokens to another wallet."""
        ...

    def set_rated_power(self, meter_id: str, rated_power_w: int) -> None:
        """Correct what a plant can feed in."""
        ...


class HeldReadings(Protocol):
    """What waits for an operator's word."""

    def list_held(self) -> Sequence[Row]:
        """Return every held reading, the oldest first."""
        ...

    def release(self, reading_id: int) -> int:
        """Credit what the register moved; return the Wh."""
        ...

    def reject(self, reading_id: int, reason: str) -> None:
        """Refuse a held reading for good."""
        ...

    def accept_epoch(self, meter_id: str, epoch: str, rules: ReadingRules) -> int:
        """Confirm an epoch and judge what was held for it; return how many."""
        ...


class RetryQueue(Protocol):
    """Credits that a rule or the chain refused."""

    def rows(self, *, parked_only: bool = False) -> Sequence[Row]:
        """Return the queue, those that wait for an operator first."""
        ...

    def requeue(self, reading_id: int) -> None:
        """Let the next pass try this credit again."""
        ...

    def give_up(self, reading_id: int) -> None:
        """Lay a credit aside until somebody requeues it."""
        ...


class MintTrigger(Protocol):
    """The wish for a pass of the minter, in whichever process it runs."""

    def ask(self, actor: str, now_ms: int) -> int:
        """Ask for a pass and return its number; `FloodedError` within a minute of the last."""
        ...

    def state(self) -> tuple[int, int]:
        """Return the numbers of the newest pass that was asked for, and of the newest done."""
        ...


class Overrides(Protocol):
    """Settings changed while the program runs."""

    def rows(self) -> Sequence[Row]:
        """Return what is overridden, when and by whom."""
        ...

    def change(
        self, values: Mapping[str, str | None], check: Callable[[Mapping[str, str]], object]
    ) -> None:
        """Set overrides, or take them back where the value is None; all or none."""
        ...


class ApiTokens(Protocol):
    """API tokens; shown once, kept as hashes."""

    def rows(self) -> Sequence[Row]:
        """Return all tokens without their secrets."""
        ...

    def create(self, label: str, role: str, user_id: str | None, days: int | None) -> str:
        """Make a token and return it."""
        ...

    def revoke(self, label: str) -> None:
        """End a token with its sessions and connections."""
        ...


class LiveConnections(Protocol):
    """The running events server, as operators see it; may be called from any thread."""

    def connections(self) -> Sequence[Row]:
        """Return who is connected: `conn`, `label`, `role`, `user_id`, `streams`, `waiting`."""
        ...

    def close_connection(self, conn: str) -> bool:
        """Close a connection; return whether there was one of this id."""
        ...


class Records(Protocol):
    """What is known of the work and of who did what."""

    def note(self, actor: str, action: str, subject: str) -> None:
        """Write an audit entry of a deed that changes nothing in the store."""
        ...

    def status(self) -> Row:
        """Return what is minted, what waits and for whom."""
        ...

    def unminted(self, behind: tuple[str, str], limit: int) -> Sequence[Row]:
        """Return the meters with credits that are not minted, by id: where their energy waits.

        *behind* = the meter and owner to go on behind. Each row has `meter_id`, `user_id`,
        `owner_wh` (in no batch, of all the owner's meters), `oldest_at_ms`, `credit_wh`, and the
        numbers of readings that are `free`, `in_batch`, `retrying` and `parked`, with the `errors`
        of these.
        """
        ...

    def audit_page(self, before: int | None, limit: int) -> Sequence[Row]:
        """Return audit entries, newest first; *before* = the entry to go on behind."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All that one operator can do; each deed is audited under that operator's name."""

    registry: Registry
    moves: Moves
    held: HeldReadings
    retries: RetryQueue
    overrides: Overrides
    trigger: MintTrigger
    tokens: ApiTokens
    records: Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """What the admin routes work with.

    Attributes:
        desk_of: Actor -> the desk of that operator.
        config: Returns the changeable settings in force, name -> text.
        check_config: Given all overrides as they would be; raises when they do not go.
        config_changed: Told when overrides were changed.
        live: Returns the events server of this process; None = it has none.
        pass_wanted: Told when somebody asked for a pass of the minter.
        pace: Returns what of the settings keeps a credit from being sealed.
        rules: Returns the limits of a reading in force.
        password_line: (user, password) -> line of the broker's password file.
        new_password: Returns a password nobody can guess.
        open_claim: Signed text -> claim; raises `ValidationError`.
        check_wallet: (user, wallet) -> what the chain knows; raises `ValidationError`.
    """

    desk_of: Callable[[str], Desk]
    config: Callable[[], Mapping[str, str]]
    check_config: Callable[[Mapping[str, str]], object]
    config_changed: Callable[[], None]
    live: Callable[[], LiveConnections | None]
    pass_wanted: Callable[[], None]
    pace: Callable[[], Pace]
    rules: Callable[[], ReadingRules]
    password_line: Callable[[str, str], str]
    new_password: Callable[[], str]
    open_claim: Callable[[str], Claim]
    check_wallet: Callable[[str, str], WalletSeen]
