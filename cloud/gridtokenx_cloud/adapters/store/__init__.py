"""The store: plain SQL over SQLite, one module per service that uses it."""
