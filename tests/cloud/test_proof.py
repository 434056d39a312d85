import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.proof import is_in_batch, make_proof, proof_from_json, proof_to_json
from tests.support.proofs import GATEWAY, source

PLACES = st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))


@given(PLACES)
def test_a_proof_holds_after_it_went_through_its_text(place: tuple[int, int]) -> None:
    origin = source(*place)
    memo = parse_memo(origin.memo)

    proof = proof_from_json(proof_to_json(make_proof(origin)))

    assert memo is not None
    assert is_in_batch(proof, memo)
    assert (proof.gateway, proof.memo) == (GATEWAY, origin.memo)


@given(PLACES.filter(lambda place: place[0] > 1), st.data())
def test_any_flipped_bit_of_line_or_path_breaks_it(
    place: tuple[int, int], data: st.DataObject
) -> None:
    origin = source(*place)
    memo = parse_memo(origin.memo)
    value = json.loads(proof_to_json(make_proof(origin)))
    path = [bytearray(base64.b64decode(node)) for node in value["path"]]
    node = data.draw(st.integers(0, len(path) - 1))
    bit = data.draw(st.integers(0, 255))
    path[node][bit // 8] ^= 1 << (bit % 8)
    value["path"] = [base64.b64encode(bytes(one)).decode() for one in path]

    assert memo is not None
    assert not is_in_batch(proof_from_json(json.dumps(value)), memo)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"v":1}', '{"path":["?"]}'])
def test_what_is_no_proof_is_refused(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        proof_from_json(text)

    assert caught.value.code == "MalformedProof"
