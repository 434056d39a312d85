"""A proof over real signed lines, made as the store's own are."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.batching import BatchMemo
from gridtokenx_cloud.merkle import leaf_hash, merkle_root
from gridtokenx_cloud.proof import ProofSource
from gridtokenx_wire import base58
from gridtokenx_wire.signing import RECORD_DOMAIN, seal

KEY = Ed25519PrivateKey.from_private_bytes(b"g" * 32)
GATEWAY = base58.encode_key(KEY.public_key().public_bytes_raw())
TRANSACTION = "5" * 88


def source(leaves: int, index: int) -> ProofSource:
    """Return what a proof is made of: *leaves* lines, the one at *index* to be proven."""
    lines = tuple(
        seal(
            f'{{"export_wh":{1000 + n},"import_wh":0,"meter_id":"HOUSE-1","seq":{n}}}'.encode(),
            RECORD_DOMAIN,
            KEY.sign,
        )
        for n in range(leaves)
    )
    root = merkle_root([leaf_hash(line) for line in lines])
    memo = BatchMemo(7, leaves, 29_000_000, 15, root).text()
    return ProofSource(lines, index, 7, memo, TRANSACTION, GATEWAY, "ann")
