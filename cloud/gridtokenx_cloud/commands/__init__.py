"""The commands of `gtx-cloud`, one module per subject."""
