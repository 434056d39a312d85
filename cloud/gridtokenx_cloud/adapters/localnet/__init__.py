"""A Solana cluster of one for development, demo and tests.

LiteSVM executes the real programs; this package adds what a client of a real cluster sees around
it: blocks, commitment, expiry, duplicates, history, forks, JSON-RPC, and faults on command.
"""

from gridtokenx_cloud.adapters.localnet.chain import Localnet
from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.server import LocalnetServer, run_localnet, serve, tick

__all__ = ["Faults", "Localnet", "LocalnetServer", "run_localnet", "serve", "tick"]
