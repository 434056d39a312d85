"""The hash tree of RFC 6962 (SHA-256) over signed lines: one root proves every reading."""

import hashlib
from collections.abc import Sequence


def leaf_hash(line: bytes) -> bytes:
    """Return the leaf of a signed line: SHA-256 of 0x00 and the bytes as they came."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the parent of two nodes; 0x01 keeps it from posing as a leaf."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes in their order; no leaves hash to SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    # An odd node moves up unpaired: the same tree as splitting at the largest power of two.
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [node_hash(a, b) for a, b in pairs] + level[len(level) & ~1 :]
    return level[0]


def audit_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the sibling hashes that lead from leaf *index* to the root, the lowest first."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [node_hash(a, b) for a, b in pairs] + level[len(level) & ~1 :]
        index //= 2
    return tuple(path)


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that *path* leads to, or None when the path has the wrong length.

    Source: RFC 9162, section 2.1.3.2 (verifying an inclusion proof).
    """
    if not 0 <= index < size:
        return None
    node, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return node if last == 0 else None
