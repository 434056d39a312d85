"""Keys that never leave the service that signs; the only module that knows solana-keychain."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
from pydantic import SecretStr
from solana_keychain import SignerError, SignerErrorCode, SolanaSigner, VaultSignerConfig
from solana_keychain.vault import VaultSigner

from gridtokenx_cloud.adapters.keystore.opening import read_password
from gridtokenx_cloud.errors import (
    CloudError,
    ConfigError,
    SignerUnavailableError,
    SigningKeyError,
)
from gridtokenx_cloud.ports.keys import RemoteKey

Use = Callable[[bytes], Awaitable[bytes]]

_WAITING_HELPS = {
    SignerErrorCode.HTTP_ERROR,
    SignerErrorCode.NOT_AVAILABLE,
    # A proxy in between said something in the service's place.
    SignerErrorCode.PARSING_ERROR,
}
_PASSING_STATUSES = {408, 412, 425, 429, 472, 473}
"""Timeouts, throttling, and Vault's standby nodes; every 5xx too, such as 503 while sealed."""

_NEVER_PASSES = {
    "AccessDeniedException",
    "DisabledException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NoCredentialsError",
    "NotFound",
    "NotFoundException",
    "PermissionDenied",
    "Unauthenticated",
    "UnrecognizedClientException",
}
"""What the clouds' own libraries call a matter for an operator."""


class KeychainSigner:
    """`KeySigner` over a service, by way of solana-keychain.

    Args:
        name: For messages.
        address: Base58 public key.
        use: Lets the service sign; the library checks what comes back against the address.
        timeout_s: Patience with one signature.
    """

    def __init__(self, name: str, address: str, use: Use, timeout_s: float) -> None:
        self._name = name
        self._use = use
        self._timeout_s = timeout_s
        self.address = address

    def __repr__(self) -> str:
        return f"KeychainSigner({self._name}, {self.address})"

    async def sign(self, message: bytes) -> bytes:
        """See `KeySigner.sign`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._use(message)
        except TimeoutError:
            raise SignerUnavailableError(
                f"{self._name} has not signed for {self.address} within {self._timeout_s:g} s"
            ) from None
        except SignerError as exc:
            # The library hides what the service said: it may hold what nobody should read.
            raise self._fault(exc) from None

    def _fault(self, error: SignerError) -> CloudError:
        status = f", HTTP {error.status_code}" if error.status_code else ""
        cause = f", {name}" if (name := _cause(error)) else ""
        what = f"{self._name} did not sign for {self.address}: {error}{status}{cause}"
        if _may_pass(error):
            return SignerUnavailableError(what)
        return SigningKeyError(f"{what}; check its key, its token and what it allows")


def _cause(error: SignerError) -> str | None:
    """Return what the vendor's library calls it; its text may hold what nobody should read."""
    answer = getattr(error.__context__, "response", None)
    if isinstance(answer, dict):
        return str(answer.get("Error", {}).get("Code"))
    return type(error.__context__).__name__ if error.__context__ else None


def _may_pass(error: SignerError) -> bool:
    if error.code is not SignerErrorCode.REMOTE_API_ERROR:
        return error.code in _WAITING_HELPS
    if _cause(error) in _NEVER_PASSES:
        return False
    status = error.status_code
    return status is None or status >= 500 or status in _PASSING_STATUSES


def signs_with(signer: SolanaSigner) -> Use:
    """Return the use of one signer of the library."""

    async def use(message: bytes) -> bytes:
        return bytes(await signer.sign_message(message))

    return use


def remote_signer(source: RemoteKey, timeout_s: float) -> KeychainSigner:
    """Return the signer of a key in a service.

    Raises:
        ConfigError: The library lacks what this service needs.
        SigningKeyError: The service's own configuration can't be used.
    """
    use = {"vault": _vault, "aws-kms": _aws, "gcp-kms": _gcp}[source.backend](source)
    return KeychainSigner(f"{source.backend} key {source.key}", source.address, use, timeout_s)


def _vault(source: RemoteKey) -> Use:
    try:
        tls = ssl.create_default_context(cafile=source.ca_file)
    except OSError as exc:
        raise ConfigError((f"{source}: ca {source.ca_file} is no certificate: {exc}",)) from exc

    async def use(message: bytes) -> bytes:
        if source.token_file is None or source.url is None:
            raise SigningKeyError(f"{source} lacks url or token; see docs/keys.md")
        # The token is read each time: an agent beside Vault renews it in its file.
        token = read_password(source.token_file)
        if not _fits_a_header(token):
            raise SigningKeyError(f"{source.token_file} holds no token of Vault: one line of ASCII")
        async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
            config = VaultSignerConfig(
                api_base_url=source.url,
                token=token.get_secret_value(),
                key_name=source.key,
                public_key=source.address,
                http_client=client,
            )
            return bytes(await VaultSigner(config).sign_message(message))

    return use


def _fits_a_header(token: SecretStr) -> bool:
    return token.get_secret_value().isascii() and token.get_secret_value().isprintable()


def _aws(source: RemoteKey) -> Use:
    try:
        from solana_keychain.aws_kms import AwsKmsSigner, AwsKmsSignerConfig
    except ImportError as exc:
        raise _missing(source, exc) from exc
    config = AwsKmsSignerConfig(source.key, source.address, source.region)
    return _made_once(source, partial(asyncio.to_thread, AwsKmsSigner, config))


def _gcp(source: RemoteKey) -> Use:
    try:
        from solana_keychain.gcp_kms import GcpKmsSignerConfig, create_gcp_kms_signer
    except ImportError as exc:
        raise _missing(source, exc) from exc
    config = GcpKmsSignerConfig(source.key, source.address)
    return _made_once(source, partial(create_gcp_kms_signer, config))


def _missing(source: RemoteKey, cause: ImportError) -> ConfigError:
    extra = "keychain-aws" if source.backend == "aws-kms" else "keychain-gcp"
    return ConfigError((f"{source}: {cause}; pip install 'gridtokenx[{extra}]'",))


def _made_once(source: RemoteKey, make: Callable[[], Awaitable[SolanaSigner]]) -> Use:
    """Return a use whose signer is made at the first signature, in the loop that needs it."""
    made: list[SolanaSigner] = []

    async def use(message: bytes) -> bytes:
        if not made:
            try:
                made.append(await make())
            except SignerError:
                raise
            except Exception as exc:  # noqa: BLE001 - each vendor has its own errors for no credentials, no region and the like, and none of them is imported here
                raise SigningKeyError(
                    f"{source} can't be used: {type(exc).__name__}; check the region and the"
                    " credentials of this machine"
                ) from None
        return bytes(await made[0].sign_message(message))

    return use
