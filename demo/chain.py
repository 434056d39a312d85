"""Ask the localnet directly: the supply, and to hurry while nothing is at stake yet."""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

BLOCKS_TO_FINALITY = 40


def call(rpc_url: str, method: str, *params: object) -> Any:
    """Return the result of one JSON-RPC call."""
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(  # noqa: S310 - the demo's own loopback URL
        rpc_url, asked, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310
        return json.load(reply)["result"]


def token_supply(rpc_url: str, mint: str) -> int:
    """Return the finalized supply in base units."""
    supply = call(rpc_url, "getTokenSupply", mint, {"commitment": "finalized"})
    return int(supply["value"]["amount"])


@contextlib.contextmanager
def hurried_blocks(rpc_url: str) -> Iterator[None]:
    """Make blocks as fast as needed while the token is created, so that nobody waits for finality.

    Only for that: every mint afterwards takes the time it takes at 400 ms a block.
    """
    done = threading.Event()

    def hurry() -> None:
        while not done.wait(0.25):
            call(rpc_url, "gtx_advance", BLOCKS_TO_FINALITY)

    thread = threading.Thread(target=hurry)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
