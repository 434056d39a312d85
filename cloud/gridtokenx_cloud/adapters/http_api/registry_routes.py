"""Admin routes about who may send what, and who may sign in: users, gateways, meters, tokens."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gridtokenx_cloud.adapters.http_api.control_routes import Rows
from gridtokenx_cloud.adapters.http_api.identity import OwnOrigin, Parts
from gridtokenx_cloud.adapters.http_api.roles import Admin, Office, Operator, OwnDesk
from gridtokenx_cloud.ports.admin import Enrolment, WalletSeen

router = APIRouter(prefix="/admin", tags=["registry"])

_DAY_MS = 86_400_000
Name = Annotated[str, Field(min_length=1, max_length=100)]
PathName = Annotated[str, Path(min_length=1, max_length=100)]
Policy = Literal["first", "any", "none"]
Moment = Annotated[int, Field(ge=0, le=2**52)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewUser(_Body):
    """An owner and the wallet the tokens go to."""

    user_id: Name
    wallet: Name


class NewWallet(_Body):
    """Another wallet of an owner."""

    wallet: Name


class OwnerWallet(BaseModel):
    """An owner's wallet, and what the chain knows of it."""

    user_id: str
    wallet: str
    on_chain: Literal["wallet", "new", "not_asked"]
    warning: str | None


class NewGateway(_Body):
    """A gateway by its public key."""

    gateway_id: Name
    name: Name = "gateway"


class NewClaim(_Body):
    """A gateway's signed claim, and what the operator adds."""

    claim: Annotated[str, Field(min_length=1, max_length=65_536)]
    user_id: Name
    name: Name = "gateway"
    rated_power_w: int | None = None
    epoch_policy: Policy = "first"


class BrokerAccess(BaseModel):
    """A gateway's way into the broker; the password is shown this once."""

    username: str
    password: str
    password_line: str


class Enrolled(BaseModel):
    """A gateway with its new meters."""

    gateway_id: str
    meters: list[str]
    broker: BrokerAccess


class Rotation(_Body):
    """The key that follows, and how long the former one counts."""

    successor_id: Name
    overlap_days: Annotated[int, Field(ge=0, le=90)] = 7


class Rotated(BaseModel):
    """The new key's way into the broker."""

    gateway_id: str
    meters: int
    broker: BrokerAccess


class NewMeter(_Body):
    """A meter behind a gateway, for an owner."""

    meter_id: Name
    gateway_id: Name
    user_id: Name
    rated_power_w: int
    resolution_wh: int = 1
    epoch_policy: Policy = "first"


class Move(_Body):
    """Where a meter goes: to another gateway or to another owner, from a moment on."""

    gateway_id: Name | None = None
    user_id: Name | None = None
    from_ms: Moment | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Move":
        if (self.gateway_id is None) == (self.user_id is None):
            raise ValueError("give gateway_id or user_id, one of both")
        return self


class RatedPower(_Body):
    """The most a plant can feed in."""

    rated_power_w: int


class Epoch(_Body):
    """A count that an operator confirms."""

    epoch: Name


class Accepted(BaseModel):
    """How many held readings were judged."""

    readings: int


class NewToken(_Body):
    """An API token to make."""

    label: Name
    role: Literal["owner", "viewer", "operator", "admin"]
    user_id: Name | None = None
    days: Annotated[int, Field(ge=1, le=3650)] | None = None


class Token(BaseModel):
    """The token, shown this once."""

    label: str
    token: str


@router.get("/users", dependencies=[Admin])
def users(desk: OwnDesk) -> Rows:
    """List every owner."""
    return Rows(items=[dict(row) for row in desk.registry.users()])


@router.post("/users", status_code=201, dependencies=[Admin, OwnOrigin])
def add_user(body: NewUser, desk: OwnDesk, office: Office) -> OwnerWallet:
    """Enrol an owner; the chain is asked about the wallet where a node is configured."""
    seen = office.check_wallet(body.user_id, body.wallet)
    desk.registry.add_user(body.user_id, body.wallet)
    return _owner(body.user_id, body.wallet, seen)


@router.post("/users/{user_id}/wallet", dependencies=[Admin, OwnOrigin])
def set_wallet(user_id: PathName, body: NewWallet, desk: OwnDesk, office: Office) -> OwnerWallet:
    """Send an owner's tokens to another wallet, also for credits that wait."""
    seen = office.check_wallet(user_id, body.wallet)
    desk.moves.set_wallet(user_id, body.wallet)
    return _owner(user_id, body.wallet, seen)


def _owner(user_id: str, wallet: str, seen: WalletSeen) -> OwnerWallet:
    return OwnerWallet(user_id=user_id, wallet=wallet, on_chain=seen.on_chain, warning=seen.warning)


@router.get("/gateways", dependencies=[Admin])
def gateways(desk: OwnDesk) -> Rows:
    """List every gateway."""
    return Rows(items=[dict(row) for row in desk.registry.gateways()])


@router.post("/gateways", status_code=201, dependencies=[Admin, OwnOrigin])
def add_gateway(body: NewGateway, desk: OwnDesk, office: Office) -> Enrolled:
    """Enrol a gateway by its public key alone."""
    desk.registry.add_gateway(body.gateway_id, body.name)
    return Enrolled(
        gateway_id=body.gateway_id, meters=[], broker=_broker_access(body.gateway_id, office)
    )


@router.post("/gateways/claims", status_code=201, dependencies=[Admin, OwnOrigin])
def accept_claim(body: NewClaim, desk: OwnDesk, office: Office, parts: Parts) -> Enrolled:
    """Enrol a gateway and its meters from the claim it signed."""
    claim = office.open_claim(body.claim)
    wanted = Enrolment(
        user_id=body.user_id,
        name=body.name,
        rated_power_w=body.rated_power_w,
        epoch_policy=body.epoch_policy,
    )
    meters = desk.moves.accept(claim, wanted, parts.mint_address)
    return Enrolled(
        gateway_id=claim.gateway_id,
        meters=meters,
        broker=_broker_access(claim.gateway_id, office),
    )


@router.post("/gateways/{gateway_id}/revoke", status_code=204, dependencies=[Admin, OwnOrigin])
def revoke_gateway(gateway_id: PathName, desk: OwnDesk) -> None:
    """Take no further line of this gateway; what is stored stays."""
    desk.registry.revoke_gateway(gateway_id)


@router.post("/gateways/{gateway_id}/rotate", dependencies=[Admin, OwnOrigin])
def rotate_gateway(
    gateway_id: PathName, body: Rotation, desk: OwnDesk, office: Office, parts: Parts
) -> Rotated:
    """Give a gateway's meters to its new key; both count for some days."""
    until_ms = parts.clock.now_ms() + body.overlap_days * _DAY_MS
    meters = desk.moves.rotate(gateway_id, body.successor_id, until_ms)
    return Rotated(
        gateway_id=body.successor_id,
        meters=meters,
        broker=_broker_access(body.successor_id, office),
    )


@router.get("/meters", dependencies=[Admin])
def meters(desk: OwnDesk) -> Rows:
    """List every meter with its newest epoch."""
    return Rows(items=[dict(row) for row in desk.registry.meters()])


@router.post("/meters", status_code=201, dependencies=[Admin, OwnOrigin])
def add_meter(body: NewMeter, desk: OwnDesk) -> NewMeter:
    """Enrol a meter behind a gateway, for an owner."""
    desk.registry.add_meter(
        body.meter_id,
        gateway_id=body.gateway_id,
        user_id=body.user_id,
        rated_power_w=body.rated_power_w,
        resolution_wh=body.resolution_wh,
        epoch_policy=body.epoch_policy,
    )
    return body


@router.post("/meters/{meter_id}/move", status_code=204, dependencies=[Admin, OwnOrigin])
def move_meter(meter_id: PathName, body: Move, desk: OwnDesk, parts: Parts) -> None:
    """Move a meter to another gateway or owner; what is stored stays whose it was."""
    from_ms = parts.clock.now_ms() if body.from_ms is None else body.from_ms
    if body.gateway_id is not None:
        desk.moves.move_to_gateway(meter_id, body.gateway_id, from_ms)
    elif body.user_id is not None:
        desk.moves.change_owner(meter_id, body.user_id, from_ms)


@router.post("/meters/{meter_id}/rated-power", status_code=204, dependencies=[Admin, OwnOrigin])
def set_rated_power(meter_id: PathName, body: RatedPower, desk: OwnDesk) -> None:
    """Correct what a plant can feed in."""
    desk.moves.set_rated_power(meter_id, body.rated_power_w)


@router.post("/meters/{meter_id}/accept-epoch", dependencies=[Operator, OwnOrigin])
def accept_epoch(meter_id: PathName, body: Epoch, desk: OwnDesk, office: Office) -> Accepted:
    """Confirm that a meter began a new count, and judge the readings held for it."""
    return Accepted(readings=desk.held.accept_epoch(meter_id, body.epoch, office.rules()))


@router.get("/api-tokens", dependencies=[Admin])
def api_tokens(desk: OwnDesk) -> Rows:
    """List all tokens; the secrets are not among what is stored."""
    return Rows(items=[dict(row) for row in desk.tokens.rows()])


@router.post("/api-tokens", status_code=201, dependencies=[Admin, OwnOrigin])
def create_token(body: NewToken, desk: OwnDesk) -> Token:
    """Make a token and show it once."""
    token = desk.tokens.create(body.label, body.role, body.user_id, body.days)
    return Token(label=body.label, token=token)


@router.delete("/api-tokens/{label}", status_code=204, dependencies=[Admin, OwnOrigin])
def revoke_token(label: PathName, desk: OwnDesk) -> None:
    """End a token, its sessions and its open connections."""
    desk.tokens.revoke(label)


def _broker_access(gateway_id: str, office: Office) -> BrokerAccess:
    password = office.new_password()
    return BrokerAccess(
        username=gateway_id,
        password=password,
        password_line=office.password_line(gateway_id, password),
    )
