"""API tokens, sessions and tickets: what is kept, who gets in, and what a revocation ends."""

import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.commands.access import GROUPS
from gridtokenx_cloud.commands.context import emit
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from tests.support.store_rows import StoreRows


@pytest.fixture
def rows(new_store: Callable[[], Database]) -> Iterator[StoreRows]:
    rows = StoreRows(new_store())
    yield rows
    rows.database.close()


def test_a_token_says_whose_it_is_and_is_not_kept_itself(rows: StoreRows) -> None:
    token = rows.user("anna")

    principal = rows.access.authenticate(token)

    assert principal is not None
    assert (principal.role, principal.user_id) == ("owner", "anna")
    assert token.startswith("gtx_")
    assert len(token) == len("gtx_") + 43
    read = rows.database.connection
    stored = str([tuple(row) for row in read.execute("SELECT * FROM api_tokens, audit_log")])
    assert token not in stored


@pytest.mark.parametrize("token", ["", "gtx_", "gtx_unknown", "gtx_" + "A" * 43])
def test_an_unknown_token_is_nobody(rows: StoreRows, token: str) -> None:
    rows.user("anna")

    assert rows.access.authenticate(token) is None
    assert rows.access.open_session(token) is None


def test_an_expired_token_is_nobody(rows: StoreRows) -> None:
    token = rows.access.create_token("week", "viewer", None, 60, "test")

    rows.clock.at_ms += 60_000

    assert rows.access.authenticate(token) is None


def test_revoking_ends_token_session_and_ticket_at_once(rows: StoreRows) -> None:
    token = rows.user("anna")
    opened = rows.access.open_session(token)
    assert opened is not None
    session, principal = opened
    ticket = rows.access.issue_ticket(principal)

    rows.access.revoke_token("anna's page", "test")

    assert rows.access.authenticate(token) is None
    assert rows.access.session(session) is None
    assert rows.access.redeem_ticket(ticket) is None
    assert rows.access.ended([principal.credential]) == {principal.credential}
    with pytest.raises(NotFoundError, match="no live API token"):
        rows.access.revoke_token("anna's page", "test")


def test_a_session_ends_by_itself_with_its_token_or_on_signing_out(rows: StoreRows) -> None:
    token = rows.access.create_token("short", "viewer", None, 600, "test")
    first, second = rows.access.open_session(token), rows.access.open_session(token)
    assert first is not None
    assert second is not None

    rows.access.close_session(first[0])
    signed_out = rows.access.session(first[0])
    still_in = rows.access.session(second[0])
    rows.clock.at_ms += 600_000

    assert signed_out is None
    assert still_in is not None
    assert still_in.expires_at_ms == rows.clock.at_ms
    assert rows.access.session(second[0]) is None
    assert rows.access.ended([first[1].credential, second[1].credential]) == {first[1].credential}


def test_a_ticket_works_once(rows: StoreRows) -> None:
    opened = rows.access.open_session(rows.user("anna"))
    assert opened is not None
    ticket = rows.access.issue_ticket(opened[1])

    first, second = rows.access.redeem_ticket(ticket), rows.access.redeem_ticket(ticket)

    assert first == opened[1]
    assert second is None


def test_a_ticket_is_good_for_thirty_seconds(rows: StoreRows) -> None:
    principal = rows.access.authenticate(rows.user("anna"))
    assert principal is not None
    ticket = rows.access.issue_ticket(principal)

    rows.clock.at_ms += 30_000

    assert rows.access.redeem_ticket(ticket) is None


def test_a_ticket_dies_with_its_session(rows: StoreRows) -> None:
    opened = rows.access.open_session(rows.user("anna"))
    assert opened is not None
    ticket = rows.access.issue_ticket(opened[1])

    rows.access.close_session(opened[0])

    assert rows.access.redeem_ticket(ticket) is None


@pytest.mark.parametrize(
    ("label", "role", "user_id", "said"),
    [
        ("", "viewer", None, "1 to 100 printable"),
        ("a\nb", "viewer", None, "1 to 100 printable"),
        ("x", "king", None, "choose one of owner"),
        ("x", "owner", None, "name the user of an owner's token"),
        ("x", "admin", "anna", "name the user of an owner's token"),
        ("anna's page", "viewer", None, "choose another"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(
    rows: StoreRows, label: str, role: str, user_id: str | None, said: str
) -> None:
    rows.user("anna")

    with pytest.raises(ValidationError, match=said):
        rows.access.create_token(label, role, user_id, None, "test")


def test_a_token_for_an_unknown_user_is_not_made(rows: StoreRows) -> None:
    with pytest.raises(NotFoundError, match="no user 'nobody'"):
        rows.access.create_token("x", "owner", "nobody", None, "test")


def test_making_and_revoking_is_audited_without_the_secret(rows: StoreRows) -> None:
    token = rows.staff()

    rows.access.revoke_token("admin desk", "cli:root")

    entries = rows.database.connection.execute(
        "SELECT actor, action, subject, detail FROM audit_log ORDER BY entry"
    ).fetchall()
    assert [(e["actor"], e["action"], e["subject"]) for e in entries] == [
        ("test", "api_token_created", "admin desk"),
        ("cli:root", "api_token_revoked", "admin desk"),
    ]
    assert all(token not in e["detail"] for e in entries)


class FakeContext:
    """`CommandContext` over a store of rows."""

    actor = "cli:test"
    settings = None

    def __init__(self, rows: StoreRows) -> None:
        self.clock = rows.clock
        self._rows = rows

    def database(self) -> Database:
        return self._rows.database

    def emit(self, found: list[dict[str, object]], as_json: bool) -> None:
        emit(found, as_json, sys.stdout)


def run(rows: StoreRows, *arguments: str) -> str:
    result = CliRunner().invoke(GROUPS[0], arguments, obj=FakeContext(rows), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_the_command_prints_a_token_once_and_lists_without_it(rows: StoreRows) -> None:
    rows.user("anna")

    token = run(rows, "create", "phone", "--user", "anna", "--days", "30")
    listed = run(rows, "list")

    assert rows.access.authenticate(token) is not None
    assert "phone" in listed
    assert token not in listed


def test_the_command_prints_a_sign_in_link_whose_token_stays_in_the_fragment(
    rows: StoreRows,
) -> None:
    link = run(rows, "create", "desk", "--role", "admin", "--link", "https://grid.example/")

    address, _, token = link.partition("/#token=")
    assert address == "https://grid.example"
    assert rows.access.authenticate(token) is not None


def test_the_command_revokes(rows: StoreRows) -> None:
    token = rows.staff()

    run(rows, "revoke", "admin desk")

    assert rows.access.authenticate(token) is None
