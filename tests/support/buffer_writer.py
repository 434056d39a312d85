"""A process that fills a buffer until it is killed: prints each seq after its commit.

It stops before the buffer is full, should whoever kills it be late.
"""

import asyncio
import sys
from pathlib import Path

from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from tests.support import build

MOST = 5_000


async def main(path: Path) -> None:
    buffer = open_buffer(path, build.SIGNER.gateway_id, 16, 900, 0)
    known = (await buffer.states()).get("M1")
    seq = known.seq if known else 0
    while True:
        if seq == MOST:
            await asyncio.Event().wait()
        seq += 1
        await buffer.commit(build.state("M1", seq), [build.row("slot", "M1", seq)], {})
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
