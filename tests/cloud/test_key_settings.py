"""How the settings say where signing keys are, and who may read the files that hold secrets."""

from pathlib import Path

import pytest
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import write_keypair
from gridtokenx_cloud.errors import ConfigError, SigningKeyError
from gridtokenx_cloud.key_wiring import load_keys
from gridtokenx_cloud.ports.keys import KeyFile, RemoteKey, SealedKeyFile
from gridtokenx_cloud.settings import Settings, load_settings, non_default_values
from gridtokenx_cloud.settings.private_file import exposure

ADDRESS = str(Keypair.from_seed(b"r" * 32).pubkey())
OTHER = str(Keypair.from_seed(b"o" * 32).pubkey())
VAULT = f"keychain:vault?url=https://vault.example:8200&key=mint&address={ADDRESS}"
AWS = f"keychain:aws-kms?key=alias/mint+pay&address={ADDRESS}"
GCP_KEY = "projects/p/locations/europe/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
GCP = f"keychain:gcp-kms?key={GCP_KEY}&address={ADDRESS}"


def settings(authority: str, **more: str) -> Settings:
    environ = {
        "GTX_CLOUD_ENVIRONMENT": "development",
        "BLOCKCHAIN_MINT_AUTHORITY_KEY": authority,
        "CREDENTIALS_DIRECTORY": "/run/credentials/cloud",
        **more,
    }
    return load_settings(environ=environ, complete=False)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("file:/etc/key.json", KeyFile(Path("/etc/key.json"))),
        ("enc:/etc/key.sealed", SealedKeyFile(Path("/etc/key.sealed"))),
        ("credential:mint", KeyFile(Path("/run/credentials/cloud/mint"))),
        (
            f"{VAULT}&token=credential:vault&ca=/etc/ca.pem",
            RemoteKey(
                "vault",
                ADDRESS,
                "mint",
                url="https://vault.example:8200",
                token_file=Path("/run/credentials/cloud/vault"),
                ca_file=Path("/etc/ca.pem"),
            ),
        ),
        (
            f"{AWS}&region=eu-central-1",
            RemoteKey("aws-kms", ADDRESS, "alias/mint+pay", region="eu-central-1"),
        ),
        (GCP, RemoteKey("gcp-kms", ADDRESS, GCP_KEY)),
    ],
)
def test_a_key_is_in_a_file_a_sealed_file_a_credential_or_a_service(
    text: str, source: object
) -> None:
    assert settings(text).blockchain.mint_authority_key == source


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("file:", ["names nothing"]),
        ("keychain:hsm?key=k", ["unknown service 'hsm'", "vault, aws-kms, gcp-kms"]),
        (
            "keychain:vault?url=http://v.example&address=short&address=short&x=1",
            [
                "key is missing",
                "token is missing",
                "x is no parameter of vault",
                "address is given twice",
                "address short is no base58",
                "url http://v.example is no https",
            ],
        ),
        ("keychain:aws-kms", ["key is missing", "address is missing"]),
        (
            f"keychain:gcp-kms?key=projects/p&address={ADDRESS}&region=x",
            ["region is no parameter", "key projects/p is no projects/P/"],
        ),
    ],
)
def test_all_that_is_wrong_with_where_a_key_is_comes_at_once(text: str, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(text)

    [said] = caught.value.faults
    assert said.startswith("ValidationFailed: BLOCKCHAIN_MINT_AUTHORITY_KEY=***")
    for fault in faults:
        assert fault in said


@pytest.mark.parametrize(
    "text", ["[1,2,3]", "5Kb8kLf9zgWQnogidDA76MzPL6TsZZY36hWXMssSzNyd", f"{VAULT}&token=hvs.plain"]
)
def test_a_secret_in_place_of_where_it_is_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="PlainSecret") as caught:
        settings(text)

    assert text.rpartition("=")[2] not in str(caught.value)


def test_a_password_stands_in_a_file_and_nowhere_else() -> None:
    with pytest.raises(ConfigError, match="PlainSecret") as caught:
        settings("enc:/etc/k", BLOCKCHAIN_KEY_PASSWORD="correct horse")

    assert "correct horse" not in str(caught.value)


def test_a_sealed_key_without_its_password_is_a_fault_of_the_configuration() -> None:
    environ = {
        "GTX_CLOUD_ENVIRONMENT": "development",
        "BLOCKCHAIN_MINT_AUTHORITY_KEY": "enc:/etc/k",
        "BLOCKCHAIN_FEE_PAYER_KEY": "file:/etc/p",
    }

    with pytest.raises(ConfigError) as caught:
        load_settings(environ=environ, roles="settle")

    [said] = [text for text in caught.value.faults if "KEY_PASSWORD" in text]
    assert "BLOCKCHAIN_MINT_AUTHORITY_KEY is sealed" in said


def test_where_a_key_is_may_be_shown() -> None:
    shown = non_default_values(settings(f"{VAULT}&token=file:/run/token"))

    assert shown["BLOCKCHAIN_MINT_AUTHORITY_KEY"] == (
        f"keychain:vault?key=mint&address={ADDRESS} (environment)"
    )


def test_a_sealed_key_without_a_password_names_the_setting() -> None:
    with pytest.raises(ConfigError, match="BLOCKCHAIN_KEY_PASSWORD is not set"):
        load_keys(settings("enc:/etc/k", BLOCKCHAIN_FEE_PAYER_KEY="file:/etc/p"))


@pytest.mark.parametrize("kind", ["file", "service"])
def test_production_refuses_one_key_for_both_roles_wherever_it_is(
    tmp_path: Path, kind: str
) -> None:
    pair, token = Keypair.from_seed(b"r" * 32), tmp_path / "token"
    write_keypair(tmp_path / "id.json", pair)
    payer = f"file:{tmp_path}/id.json" if kind == "file" else f"{VAULT}&token=file:{token}"
    chosen = settings(
        f"{VAULT.replace('key=mint', 'key=same')}&token=file:{token}",
        BLOCKCHAIN_FEE_PAYER_KEY=payer,
        GTX_CLOUD_ENVIRONMENT="production",
    )

    with pytest.raises(ConfigError, match="production needs two"):
        load_keys(chosen)


def test_two_keys_of_a_service_are_two_roles() -> None:
    payer = VAULT.replace(ADDRESS, OTHER) + "&token=file:/run/token"
    chosen = settings(
        f"{VAULT}&token=file:/run/token",
        BLOCKCHAIN_FEE_PAYER_KEY=payer,
        GTX_CLOUD_ENVIRONMENT="production",
    )

    keys = load_keys(chosen)

    assert (keys.authority.address, keys.payer.address) == (ADDRESS, OTHER)


@pytest.mark.parametrize("backend", ["aws-kms", "gcp-kms"])
def test_a_service_whose_library_is_missing_names_what_to_install(backend: str) -> None:
    missing = {"aws-kms": "boto3", "gcp-kms": "google.cloud.kms_v1"}[backend]
    pytest.importorskip("solana_keychain")
    try:
        __import__(missing)
    except ImportError:
        pass
    else:
        pytest.skip(f"{missing} is installed here")
    chosen = settings({"aws-kms": AWS, "gcp-kms": GCP}[backend], BLOCKCHAIN_FEE_PAYER_KEY="file:p")

    with pytest.raises(ConfigError, match=r"pip install 'gridtokenx\[keychain-"):
        load_keys(chosen)


@pytest.mark.parametrize(
    ("mode", "owner", "read_only", "right"),
    [
        (0o600, 1000, False, True),
        (0o400, 1000, False, True),
        (0o400, 0, True, True),
        # Kubernetes, fsGroup set: kubernetes/kubernetes#57923. systemd's access list:
        # systemd/systemd#29435.
        (0o440, 0, True, True),
        (0o440, 0, False, False),
        (0o440, 1000, True, False),
        (0o640, 0, True, False),
        (0o460, 0, True, False),
        (0o444, 0, True, False),
        (0o644, 0, False, False),
        (0o604, 1000, False, False),
        (0o602, 1000, False, False),
    ],
)
def test_a_secret_is_readable_by_its_owner_or_handed_over_by_root(
    mode: int, owner: int, read_only: bool, right: bool
) -> None:
    fault = exposure(mode, owner, read_only_mount=read_only)

    assert (fault is None) is right


def test_the_fault_of_an_open_file_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "id.json"
    write_keypair(path, Keypair())
    path.chmod(0o640)

    with pytest.raises(SigningKeyError) as caught:
        load_keys(settings(f"file:{path}", BLOCKCHAIN_FEE_PAYER_KEY=f"file:{path}2"))

    assert str(caught.value) == (
        f"key file {path} has mode 0640, others may read it; run: chmod 600 {path}"
    )
