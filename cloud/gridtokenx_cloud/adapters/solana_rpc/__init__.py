"""Solana over JSON-RPC; the only package besides localnet and keystore that knows solders."""
