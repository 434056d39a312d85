"""One contract for every place a key can be in, and what goes wrong in each."""

import base64
import copy
import json
import pickle
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import SecretStr
from solana_keychain import MemorySigner, SignerError, SignerErrorCode
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from gridtokenx_cloud.adapters.keystore import LocalSigner, load_key, open_signer, prove
from gridtokenx_cloud.adapters.keystore.files import write_new, write_signer
from gridtokenx_cloud.adapters.keystore.keychain import KeychainSigner, signs_with
from gridtokenx_cloud.adapters.keystore.opening import read_password
from gridtokenx_cloud.adapters.keystore.sealed import ScryptCost, load_sealed_key, seal
from gridtokenx_cloud.errors import (
    CloudError,
    ConfigError,
    SignerUnavailableError,
    SigningKeyError,
)
from gridtokenx_cloud.ports.keys import KeyFile, KeySigner, RemoteKey, SealedKeyFile
from tests.support.fake_vault import FakeVault, fake_vault

SEED = b"one seed of the signer contract!"
PAIR = Keypair.from_seed(SEED)
ADDRESS = str(PAIR.pubkey())
PASSWORD = SecretStr("correct horse battery staple")
TOKEN = "hvs.a-token-of-vault"
CHEAP = ScryptCost(n=2**14)
PLACES = ("file", "sealed file", "service in memory", "vault")

Open = Callable[[str], Awaitable[KeySigner]]


@cache
def sealed() -> bytes:
    """Return the key, sealed; once, for it is made to cost time."""
    return seal(LocalSigner(PAIR), PASSWORD, CHEAP)


def sealed_file(folder: Path) -> Path:
    path = folder / "sealed.json"
    write_new(path, sealed())
    return path


def token_file(folder: Path, token: str = TOKEN) -> Path:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(token + "\n")
    return path


def vault_signer(vault: FakeVault, folder: Path, timeout_s: float = 30.0) -> KeySigner:
    source = RemoteKey("vault", ADDRESS, "mint", url=vault.url, token_file=token_file(folder))
    return open_signer(source, lambda: PASSWORD, timeout_s)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Open the same key wherever it is."""
    async with AsyncExitStack() as stack:

        async def make(place: str) -> KeySigner:
            if place == "file":
                path = tmp_path / "plain.json"
                write_signer(path, LocalSigner(PAIR))
                return open_signer(KeyFile(path), lambda: PASSWORD, 30.0)
            if place == "sealed file":
                source = SealedKeyFile(sealed_file(tmp_path))
                return open_signer(source, lambda: PASSWORD, 30.0)
            if place == "vault":
                vault = await stack.enter_async_context(fake_vault(PAIR, TOKEN))
                return vault_signer(vault, tmp_path)
            memory = signs_with(MemorySigner.from_bytes(bytes(PAIR)))
            return KeychainSigner("memory", ADDRESS, memory, 30.0)

        yield make


@pytest.mark.parametrize("place", PLACES)
async def test_whatever_holds_the_key_the_signature_is_the_same(place: str, opened: Open) -> None:
    signer = await opened(place)

    signature = await signer.sign(b"any bytes, a transaction's message too")

    assert signer.address == ADDRESS
    assert Signature.from_bytes(signature).verify(
        Pubkey.from_string(signer.address), b"any bytes, a transaction's message too"
    )
    assert signature == bytes(PAIR.sign_message(b"any bytes, a transaction's message too"))


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_shows_that_it_can_sign_before_anything_depends_on_it(
    place: str, opened: Open
) -> None:
    signer = await opened(place)

    await prove(signer)


@pytest.mark.parametrize("place", PLACES)
async def test_a_signer_shows_its_address_and_nothing_else(place: str, opened: Open) -> None:
    signer = await opened(place)

    shown = f"{signer} {signer!r}"

    assert ADDRESS in shown
    assert not leaked(shown)


async def test_a_signer_of_another_key_proves_nothing() -> None:
    other = signs_with(MemorySigner(Keypair.from_seed(b"x" * 32)))

    with pytest.raises(SigningKeyError, match="holds another key"):
        await prove(KeychainSigner("memory", ADDRESS, other, 30.0))


def test_a_key_in_memory_is_never_copied_or_pickled() -> None:
    signer = LocalSigner(PAIR)

    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied"):
            take(signer)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b'{"errors":["Vault is sealed"]}', SignerUnavailableError),
        (429, b"{}", SignerUnavailableError),
        (473, b"{}", SignerUnavailableError),
        (302, b"", SignerUnavailableError),
        (200, b"<html>a proxy's page</html>", SignerUnavailableError),
        (400, b'{"errors":["no such key"]}', SigningKeyError),
        (200, b'{"data":{"signature":"vault:v1:AAAA"}}', SigningKeyError),
    ],
)
async def test_what_vault_answers_says_whether_waiting_helps(
    tmp_path: Path, status: int, body: bytes, error: type[CloudError]
) -> None:
    async with fake_vault(PAIR, TOKEN) as vault:
        vault.status, vault.body = status, body
        signer = vault_signer(vault, tmp_path)

        with pytest.raises(error, match="did not sign") as caught:
            await signer.sign(b"message")

    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


class PermissionDenied(Exception):  # noqa: N818 - named as Google's library names it
    """What one cloud's library raises."""


class ClientError(Exception):
    """What the other's raises, its own code inside."""

    def __init__(self, code: str) -> None:
        super().__init__("a text with the caller's identity")
        self.response = {"Error": {"Code": code, "Message": "a text"}}


@pytest.mark.parametrize(
    ("cause", "error", "named"),
    [
        (PermissionDenied("a text"), SigningKeyError, "PermissionDenied"),
        (ClientError("AccessDeniedException"), SigningKeyError, "AccessDeniedException"),
        (ClientError("ThrottlingException"), SignerUnavailableError, "ThrottlingException"),
        (OSError("a text"), SignerUnavailableError, "OSError"),
    ],
)
async def test_what_a_cloud_calls_it_is_shown_without_its_text(
    cause: Exception, error: type[CloudError], named: str
) -> None:
    async def use(_message: bytes) -> bytes:
        try:
            raise cause
        except type(cause):
            raise SignerError(SignerErrorCode.REMOTE_API_ERROR, f"it says: {cause}") from None

    with pytest.raises(error, match=named) as caught:
        await KeychainSigner("cloud key", ADDRESS, use, 30.0).sign(b"message")

    assert "a text" not in rendered(caught.value).rpartition("Error: ")[2]


@pytest.mark.parametrize("backend", ["aws-kms", "gcp-kms"])
async def test_a_cloud_is_asked_with_the_name_region_and_address_that_are_set(
    backend: Literal["aws-kms", "gcp-kms"], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    instead_of_the_cloud(monkeypatch, lambda *config: asked.append(config))
    region = "eu-central-1" if backend == "aws-kms" else None
    source = RemoteKey(backend, ADDRESS, "the-key", region=region)
    signer = open_signer(source, lambda: PASSWORD, 30.0)
    assert asked == []

    await prove(signer)
    await prove(signer)

    assert asked == [("the-key", ADDRESS, region) if region else ("the-key", ADDRESS)]


@pytest.mark.parametrize("backend", ["aws-kms", "gcp-kms"])
async def test_a_machine_that_has_no_way_to_its_cloud_is_said_once_and_clearly(
    backend: Literal["aws-kms", "gcp-kms"], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_region(*_config: object) -> None:
        raise LookupError("a text")

    instead_of_the_cloud(monkeypatch, no_region)
    signer = open_signer(RemoteKey(backend, ADDRESS, "k"), lambda: PASSWORD, 30.0)

    with pytest.raises(SigningKeyError, match="can't be used: LookupError; check the region"):
        await prove(signer)


def instead_of_the_cloud(monkeypatch: pytest.MonkeyPatch, on_config: Callable[..., object]) -> None:
    """Put a signer in memory where the clouds' own libraries would be needed."""

    def made(config: tuple[object, ...]) -> MemorySigner:
        on_config(*config)
        return MemorySigner(PAIR)

    async def made_in_the_loop(config: tuple[object, ...]) -> MemorySigner:
        return made(config)

    aws = SimpleNamespace(AwsKmsSigner=made, AwsKmsSignerConfig=lambda *config: config)
    gcp = SimpleNamespace(
        create_gcp_kms_signer=made_in_the_loop, GcpKmsSignerConfig=lambda *config: config
    )
    monkeypatch.setitem(sys.modules, "solana_keychain.aws_kms", aws)
    monkeypatch.setitem(sys.modules, "solana_keychain.gcp_kms", gcp)


async def test_a_vault_that_answers_nobody_is_given_up_in_time(tmp_path: Path) -> None:
    async with fake_vault(PAIR, TOKEN) as vault:
        vault.silent = True
        signer = vault_signer(vault, tmp_path, timeout_s=0.05)

        with pytest.raises(SignerUnavailableError, match=r"within 0\.05 s"):
            await signer.sign(b"message")


async def test_a_vault_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    async with fake_vault(PAIR, TOKEN) as vault:
        signer = vault_signer(vault, tmp_path)

    with pytest.raises(SignerUnavailableError):
        await signer.sign(b"message")


async def test_a_renewed_token_is_used_at_once(tmp_path: Path) -> None:
    async with fake_vault(PAIR, TOKEN) as vault:
        signer = vault_signer(vault, tmp_path)
        await signer.sign(b"message")
        vault.token = "hvs.the-next-one"

        with pytest.raises(SigningKeyError, match="HTTP 403"):
            await signer.sign(b"message")
        token_file(tmp_path, "hvs.the-next-one")
        await signer.sign(b"message")

    assert set(vault.paths) == {"/v1/transit/sign/mint"}


@pytest.mark.parametrize("token", ["hvs.two\nlines", "hvs.\u00fcmlaut", "a\tb"])
async def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    tmp_path: Path, token: str
) -> None:
    async with fake_vault(PAIR, TOKEN) as vault:
        signer = vault_signer(vault, tmp_path)
        token_file(tmp_path, token)

        with pytest.raises(SigningKeyError, match="holds no token of Vault") as caught:
            await signer.sign(b"message")

    assert token not in rendered(caught.value).partition("gridtokenx_cloud")[2]
    assert vault.paths == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_is_none_is_a_fault_of_the_configuration(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    source = RemoteKey("vault", ADDRESS, "k", url="https://v.example", ca_file=path)

    with pytest.raises(ConfigError, match=f"ca {path} is no certificate"):
        open_signer(source, lambda: PASSWORD, 30.0)


def test_a_wrong_password_is_one_clear_line(tmp_path: Path) -> None:
    path = sealed_file(tmp_path)

    with pytest.raises(SigningKeyError, match="does not open: the password is wrong") as caught:
        load_sealed_key(path, SecretStr("incorrect horse battery staple"))

    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


ANOTHER = base64.b64encode(bytes(48)).decode()
CHANGED: dict[str, object] = {
    "format": "other",
    "version": 2,
    "public_key": str(Keypair.from_seed(b"o" * 32).pubkey()),
    "kdf": "argon2",
    "n": 2**15,
    "r": 9,
    "p": 2,
    "salt": ANOTHER[:22] + "==",
    "cipher": "none",
    "nonce": ANOTHER[:16],
    "sealed": ANOTHER,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_sealed_file_of_which_anything_was_changed_does_not_open(
    tmp_path: Path, name: str
) -> None:
    path = sealed_file(tmp_path)
    fields = json.loads(path.read_text())
    assert fields.keys() == CHANGED.keys()
    path.write_text(json.dumps(fields | {name: CHANGED[name]}))

    with pytest.raises(SigningKeyError, match=r"does not open|is no sealed key"):
        load_sealed_key(path, PASSWORD)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2**13},
        {"n": 2**14 + 1},
        {"n": 2**21},
        {"n": 0},
        {"r": 4},
        {"p": 10**6},
        {"n": True},
        {"n": "16384"},
        {"salt": "AA=="},
        {"more": 1},
    ],
)
def test_costs_that_protect_nothing_or_stop_the_machine_are_not_even_tried(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = sealed_file(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(SigningKeyError, match="is no sealed key of version 1"):
        load_sealed_key(path, PASSWORD)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_password_file_without_a_password_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_bytes(content)

    with pytest.raises(SigningKeyError, match=f"{path} holds no password"):
        read_password(path)


def test_a_new_key_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "id.json"
    write_signer(path, LocalSigner(PAIR))

    with pytest.raises(SigningKeyError, match="can't be made: FileExistsError"):
        write_signer(path, LocalSigner(Keypair()))

    assert load_key(path).address == ADDRESS
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["id.json"]


def leaked(text: str) -> list[str]:
    """Return the forms of the secret that a text shows."""
    secret = bytes(PAIR)
    forms = {
        "base58": str(PAIR),
        "numbers": ", ".join(map(str, secret[:8])),
        "bare numbers": ",".join(map(str, secret[:8])),
        "hex": SEED.hex(),
        "bytes": SEED[:16].decode(),
        "password": PASSWORD.get_secret_value(),
        "token": TOKEN,
    }
    return [name for name, form in forms.items() if form in text]


def rendered(error: BaseException) -> str:
    """Return a traceback as the most talkative of tools prints it: every frame's variables."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(found.format())


async def _wrong_password(folder: Path) -> None:
    load_sealed_key(sealed_file(folder), SecretStr("wrong " + PASSWORD.get_secret_value()[::-1]))


async def _open_file(folder: Path) -> None:
    write_signer(folder / "open.json", LocalSigner(PAIR))
    (folder / "open.json").chmod(0o644)
    load_key(folder / "open.json")


async def _half_a_file(folder: Path) -> None:
    write_signer(folder / "half.json", LocalSigner(PAIR))
    text = (folder / "half.json").read_text()
    (folder / "half.json").write_text(text[:-9])
    del text
    load_key(folder / "half.json")


async def _large_file(folder: Path) -> None:
    write_signer(folder / "large.json", LocalSigner(PAIR))
    with (folder / "large.json").open("a") as file:
        file.write(" " * 70_000)
    load_key(folder / "large.json")


async def _written_twice(folder: Path) -> None:
    write_signer(folder / "twice.json", LocalSigner(PAIR))
    write_signer(folder / "twice.json", LocalSigner(PAIR))


async def _sealed_twice(folder: Path) -> None:
    write_new(sealed_file(folder), sealed())


async def _not_proven(folder: Path) -> None:
    del folder
    signer = LocalSigner(PAIR)
    signer.address = str(Keypair.from_seed(b"o" * 32).pubkey())
    await prove(signer)


async def _token_refused(folder: Path) -> None:
    async with fake_vault(PAIR, "hvs.another") as vault:
        await vault_signer(vault, folder).sign(b"message")


@pytest.mark.parametrize(
    "go_wrong",
    [
        _wrong_password,
        _open_file,
        _half_a_file,
        _large_file,
        _written_twice,
        _sealed_twice,
        _not_proven,
        _token_refused,
    ],
)
async def test_a_traceback_that_shows_every_variable_shows_no_secret(
    tmp_path: Path, go_wrong: Callable[[Path], Awaitable[None]]
) -> None:
    with pytest.raises(SigningKeyError) as caught:
        await go_wrong(tmp_path)

    text = rendered(caught.value)

    assert "Traceback" in text
    assert not leaked(text.partition("gridtokenx_cloud")[2])
