"""Signing keys: in a file, behind a password, or in a service; and what they agree to sign."""

from gridtokenx_cloud.adapters.keystore.files import load_key, write_keypair
from gridtokenx_cloud.adapters.keystore.local import LocalSigner
from gridtokenx_cloud.adapters.keystore.opening import open_signer, prove
from gridtokenx_cloud.adapters.keystore.policy import PolicySigner, SignerPolicy

__all__ = [
    "LocalSigner",
    "PolicySigner",
    "SignerPolicy",
    "load_key",
    "open_signer",
    "prove",
    "write_keypair",
]
