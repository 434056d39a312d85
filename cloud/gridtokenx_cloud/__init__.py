"""The cloud: verify, store, credit, mint, prove, show."""
