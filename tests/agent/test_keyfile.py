"""The gateway's key: made once, read by nobody else."""

from pathlib import Path

import pytest

from gridtokenx_agent.adapters.keyfile import create_key, load_key
from gridtokenx_agent.errors import KeyFileError
from gridtokenx_wire.base58 import decode_key
from gridtokenx_wire.signing import verify_ed25519


def test_a_key_that_was_made_signs_the_same_after_it_is_read(tmp_path: Path) -> None:
    made = create_key(tmp_path / "state" / "k")

    read = load_key(tmp_path / "state" / "k")

    assert read.gateway_id == made.gateway_id
    assert verify_ed25519(decode_key(made.gateway_id), b"m", read.sign(b"m"))


def test_a_new_key_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    create_key(tmp_path / "k")

    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_others_can_reach_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    create_key(tmp_path / "k")
    (tmp_path / "k").chmod(mode)

    with pytest.raises(KeyFileError, match=rf"mode {mode:04o}.*chmod 600 .*/k"):
        load_key(tmp_path / "k")


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"[1,2,3]"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)

    with pytest.raises(KeyFileError, match="is no key"):
        load_key(tmp_path / "k")


def test_a_missing_key_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="gtx-agent init"):
        load_key(tmp_path / "k")


def test_an_existing_key_is_never_replaced(tmp_path: Path) -> None:
    first = create_key(tmp_path / "k")

    with pytest.raises(KeyFileError, match="exists already"):
        create_key(tmp_path / "k")

    assert load_key(tmp_path / "k").gateway_id == first.gateway_id
    assert [path.name for path in tmp_path.iterdir()] == ["k"]
