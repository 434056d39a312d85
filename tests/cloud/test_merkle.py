"""Against the tree of RFC 6962 as its authors test it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.batching import BatchMemo
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.merkle import audit_path, leaf_hash, merkle_root, root_from_path
from gridtokenx_cloud.proof import (
    ProofSource,
    is_in_batch,
    make_proof,
    proof_from_json,
    proof_to_json,
)

# The inputs of certificate-transparency's own merkle tree tests, and the roots of the first n.
INPUTS = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]  # fmt: skip
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_the_root_is_that_of_the_reference_tree(size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]]

    assert merkle_root(leaves).hex() == ROOTS[size]


def test_a_doubled_last_leaf_makes_another_root() -> None:
    a, b, c = (leaf_hash(text) for text in (b"a", b"b", b"c"))

    assert merkle_root([a, b, c]) != merkle_root([a, b, c, c])
    assert merkle_root([]) == hashlib.sha256(b"").digest()


@given(st.integers(1, 70), st.data())
def test_every_leaf_has_a_path_to_the_root_and_to_no_other(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))

    path = audit_path(leaves, index)

    assert root_from_path(leaves[index], index, size, path) == merkle_root(leaves)
    assert root_from_path(leaf_hash(b"other"), index, size, path) != merkle_root(leaves)
    assert root_from_path(leaves[index], index, size, (*path, b"x" * 32)) is None
    assert root_from_path(leaves[index], size, size, path) is None


def test_a_path_that_stops_short_leads_nowhere() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(5)]

    assert root_from_path(leaves[0], 0, 5, audit_path(leaves, 0)[:-1]) is None
    with pytest.raises(IndexError, match="leaf 5 of 5"):
        audit_path(leaves, 5)


def test_a_proof_survives_paper_and_fails_for_another_batch() -> None:
    lines = [f"line {number}".encode() for number in range(11)]
    root = merkle_root([leaf_hash(line) for line in lines])
    proof = make_proof(ProofSource(tuple(lines), 7, 3, "memo", "sig", "gateway", "ann"))

    read_back = proof_from_json(proof_to_json(proof))

    assert read_back == proof
    assert is_in_batch(read_back, BatchMemo(3, 11, 0, 0, root))
    assert not is_in_batch(read_back, BatchMemo(4, 11, 0, 0, root))
    assert not is_in_batch(read_back, BatchMemo(3, 12, 0, 0, root))


@pytest.mark.parametrize("text", ["", "[]", '{"line": "x"}', '{"line":1,"index":"a"}'])
def test_any_other_text_is_no_proof(text: str) -> None:
    with pytest.raises(ValidationError, match="no proof"):
        proof_from_json(text)
