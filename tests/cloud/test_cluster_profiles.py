"""The profiles of real clusters: right but for what the operator fills in, and that is named."""

from pathlib import Path

import pytest

from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.settings import Settings, load_settings
from tests.support.mint_world import AUTHORITY

ENV = Path(__file__).parents[2] / "deploy" / "env"
ADDRESS = str(AUTHORITY.pubkey())
RPC = "https://one.example/v2/key,https://other.example/key"


def loaded(folder: Path, cluster: str, **filled_in: str) -> Settings:
    """Load a profile in a place that has its secrets."""
    text = (ENV / f"{cluster}.env").read_text()
    (folder / "its.env").write_text(text.replace("/etc/gridtokenx/", f"{folder}/"))
    secret = folder / "marker-secret"
    secret.touch(mode=0o600)
    secret.write_text("m" * 32)
    place = {"CREDENTIALS_DIRECTORY": str(folder), **filled_in}
    return load_settings(folder / "its.env", environ=place)


@pytest.mark.parametrize("cluster", ["devnet", "mainnet-beta"])
def test_a_profile_says_what_is_still_to_be_filled_in(tmp_path: Path, cluster: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, cluster)

    urls, mint = refused.value.faults
    assert "GTX_CLOUD_SOLANA_RPC_URLS" in urls
    assert "https://HOST" in urls
    assert "BLOCKCHAIN_MINT_ADDRESS" in mint
    assert "mint-account create" in mint


@pytest.mark.parametrize(
    ("cluster", "environment", "mints"),
    [("devnet", "staging", True), ("mainnet-beta", "production", False)],
)
def test_a_filled_in_profile_is_complete_and_holds_nothing_that_the_cluster_tells(
    tmp_path: Path, cluster: str, environment: str, mints: bool
) -> None:
    settings = loaded(
        tmp_path, cluster, GTX_CLOUD_SOLANA_RPC_URLS=RPC, BLOCKCHAIN_MINT_ADDRESS=ADDRESS
    )

    assert settings.cloud.environment == environment
    assert settings.cloud.roles == ("settle",)
    assert settings.tokenization.auto_mint_enabled is mints
    assert settings.blockchain.transaction_format == "auto"
    assert settings.blockchain.fee_payer_key != settings.blockchain.mint_authority_key


def test_no_two_profiles_are_of_one_cluster_and_none_names_a_host(tmp_path: Path) -> None:
    texts = [(ENV / f"{cluster}.env").read_text() for cluster in ("devnet", "mainnet-beta")]
    hashes = {line for text in texts for line in text.splitlines() if "GENESIS_HASH=" in line}

    assert len(hashes) == 2
    assert not any("://" in line for text in texts for line in text.splitlines() if "RPC" in line)
