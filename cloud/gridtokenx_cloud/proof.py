"""The proof that one reading is in one mint: a line, a path, a transaction. Nothing secret."""

import base64
import json
from dataclasses import dataclass

from gridtokenx_cloud.batching import BatchMemo
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.merkle import audit_path, leaf_hash, root_from_path


@dataclass(frozen=True, slots=True)
class ReadingProof:
    """Everything a stranger needs, besides the gateway's public key and an RPC endpoint.

    Attributes:
        line: The signed line as it came from the gateway.
        index: Its place among the batch's leaves.
        path: Sibling hashes, the lowest first.
        gateway: Public key that signed the line, as the store has it.
        memo: What the transaction's memo says, as the store has it; the chain's own counts.
    """

    line: str
    index: int
    leaves: int
    path: tuple[bytes, ...]
    batch_id: int
    transaction: str
    gateway: str = ""
    memo: str = ""


@dataclass(frozen=True, slots=True)
class ProofSource:
    """A minted reading's line, its place among its batch's lines, and the batch's transaction."""

    lines: tuple[bytes, ...]
    index: int
    batch_id: int
    memo: str
    signature: str
    gateway_id: str
    user_id: str


def make_proof(source: ProofSource) -> ReadingProof:
    """Return the proof of one line of a batch."""
    lines, index = source.lines, source.index
    leaves = [leaf_hash(line) for line in lines]
    return ReadingProof(
        line=lines[index].decode("ascii"),
        index=index,
        leaves=len(leaves),
        path=audit_path(leaves, index),
        batch_id=source.batch_id,
        transaction=source.signature,
        gateway=source.gateway_id,
        memo=source.memo,
    )


def is_in_batch(proof: ReadingProof, memo: BatchMemo) -> bool:
    """Tell whether the path leads from the line to the root that the memo names."""
    leaf = leaf_hash(proof.line.encode("ascii"))
    root = root_from_path(leaf, proof.index, proof.leaves, proof.path)
    return (memo.root, memo.leaves, memo.batch_id) == (root, proof.leaves, proof.batch_id)


def proof_to_json(proof: ReadingProof) -> str:
    """Return the proof as it is handed to people."""
    return json.dumps(
        {
            "v": 1,
            "line": proof.line,
            "gateway": proof.gateway,
            "index": proof.index,
            "leaves": proof.leaves,
            "path": [base64.b64encode(node).decode() for node in proof.path],
            "batch_id": proof.batch_id,
            "memo": proof.memo,
            "transaction": proof.transaction,
        },
        indent=2,
    )


def proof_from_json(text: str) -> ReadingProof:
    """Return the proof of a text made by `proof_to_json`.

    Raises:
        ValidationError: `MalformedProof`.
    """
    try:
        value = json.loads(text)
        return ReadingProof(
            line=str(value["line"]),
            index=int(value["index"]),
            leaves=int(value["leaves"]),
            path=tuple(base64.b64decode(node, validate=True) for node in value["path"]),
            batch_id=int(value["batch_id"]),
            transaction=str(value["transaction"]),
            gateway=str(value.get("gateway", "")),
            memo=str(value.get("memo", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValidationError(
            "MalformedProof", "this is no proof as `gtx-cloud proof` writes it"
        ) from exc
