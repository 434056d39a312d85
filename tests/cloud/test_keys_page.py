"""The page about keys names commands and settings that exist; so does the manifest beside it."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.settings import load_settings
from gridtokenx_cloud.settings.keys import (
    names_a_key,
    parse_key_source,
    with_credentials_found,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^ *(gtx-cloud .+)$", PAGE, re.MULTILINE)))
SOURCES = re.findall(r"=(keychain:\S+)", PAGE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_can_be_typed_as_it_stands(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli

    while isinstance(command, click.Group):
        found = command.get_command(click.Context(cli), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]

    command.make_context(command.name, list(words))


@pytest.mark.parametrize("text", SOURCES)
def test_a_service_of_the_page_is_read_as_it_stands(text: str) -> None:
    found = with_credentials_found(text, lambda one: Path("/run/credentials", one))

    assert names_a_key(text)
    assert text.startswith(f"keychain:{parse_key_source(found).backend}?")  # type: ignore[union-attr]


def test_the_page_tells_of_every_service() -> None:
    assert [text.partition("?")[0] for text in SOURCES] == [
        "keychain:vault",
        "keychain:aws-kms",
        "keychain:gcp-kms",
    ]


def test_the_manifest_sets_what_the_minter_needs_from_files_of_its_secret(tmp_path: Path) -> None:
    manifest = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "settle.yaml").read_text())
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    for name, text in (
        ("database-url", "postgresql://cloud@db.example/gridtokenx"),
        ("solana-rpc-urls", "https://one.example,https://two.example"),
        ("marker-secret", "m" * 32),
    ):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    mounted = {k: v.replace("/run/keys", str(tmp_path)) for k, v in environ.items()}
    key = "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"
    mounted |= {"BLOCKCHAIN_MINT_ADDRESS": key, "BLOCKCHAIN_GENESIS_HASH": key}

    settings = load_settings(environ=mounted, roles=container["args"][-1])

    assert settings.cloud.environment == "production"
    assert manifest["spec"]["replicas"] == 1
    assert manifest["spec"]["strategy"] == {"type": "Recreate"}
    assert container["volumeMounts"] == [
        {"name": "keys", "mountPath": "/run/keys", "readOnly": True}
    ]
    # YAML reads 0400 as octal, and so does Kubernetes.
    assert pod["volumes"][0]["secret"]["defaultMode"] == 0o400
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
