"""Opens the configured keys, and puts each behind the policy of what it may sign."""

import logging
from dataclasses import dataclass

from pydantic import SecretStr

from gridtokenx_cloud.adapters.keystore import PolicySigner, SignerPolicy, open_signer, prove
from gridtokenx_cloud.adapters.keystore.opening import read_password
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_PROGRAMS
from gridtokenx_cloud.adapters.store.key_journal import SqlKeyJournal
from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.keys import KeySigner, KeySource
from gridtokenx_cloud.settings import Settings, require

_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    """Two roles: who may mint, and who pays."""

    authority: KeySigner
    payer: KeySigner


def open_key(settings: Settings, source: KeySource) -> KeySigner:
    """Return what signs with a key.

    Raises:
        ConfigError: It is sealed and no password is set, or a library is missing.
        SigningKeyError: It can't be used.
    """
    group = settings.blockchain

    def password() -> SecretStr:
        return read_password(require(group.key_password, "BLOCKCHAIN_KEY_PASSWORD"))

    return open_signer(source, password, group.signer_timeout_secs)


def load_keys(settings: Settings) -> Keys:
    """Return both keys as configured.

    Raises:
        ConfigError: One is missing, or both are one key in production.
        SigningKeyError: One can't be used.
    """
    group = settings.blockchain
    authority = _source(group.mint_authority_key, "BLOCKCHAIN_MINT_AUTHORITY_KEY")
    payer = _source(group.fee_payer_key, "BLOCKCHAIN_FEE_PAYER_KEY")
    keys = Keys(open_key(settings, authority), open_key(settings, payer))
    if keys.authority.address == keys.payer.address:
        # Half the fees, but the key that may mint then also holds SOL and pays.
        if settings.cloud.environment == "production":
            raise ConfigError(
                (
                    "IncompatibleValues: BLOCKCHAIN_MINT_AUTHORITY_KEY and"
                    " BLOCKCHAIN_FEE_PAYER_KEY are one key; production needs two, so that the"
                    " key that may mint holds no SOL",
                )
            )
        _log.warning("one_key_for_both", extra={"address": keys.payer.address})
    return keys


def _source(value: KeySource | None, name: str) -> KeySource:
    return require(None, name) if value is None else value


async def prove_keys(keys: Keys, journal: SqlKeyJournal) -> None:
    """Find out before a batch is sealed whether both keys can sign.

    Raises:
        SignerUnavailableError: The service that holds one did not answer.
        SigningKeyError: One can't sign.
    """
    for role, key in (("mint_authority", keys.authority), ("fee_payer", keys.payer)):
        await prove(key)
        journal.key_loaded(role, key.address, repr(key))


def policy_signers(
    settings: Settings, keys: Keys, clock: Clock, journal: SqlKeyJournal
) -> list[PolicySigner]:
    """Return the keys behind the configured policy, each once.

    Raises:
        ConfigError: The token's address is not set.
    """
    group = settings.blockchain
    policy = SignerPolicy(
        mint=require(group.mint_address, "BLOCKCHAIN_MINT_ADDRESS"),
        token_program=str(TOKEN_PROGRAMS[group.token_program]),
        payer=keys.payer.address,
        max_per_transaction=group.max_tokens_per_transaction,
        max_per_day=group.max_tokens_per_day,
        max_unit_price_micro_lamports=group.priority_fee_cap_micro_lamports,
    )
    signed = journal.signed_since(clock.now_ms() // _DAY_MS * _DAY_MS)
    by_address = {key.address: key for key in (keys.authority, keys.payer)}
    return [
        PolicySigner(key, policy, clock.now_ms, signed, journal.refused(key.address))
        for key in by_address.values()
    ]
