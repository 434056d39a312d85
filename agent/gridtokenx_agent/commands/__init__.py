"""What `gtx-agent` can be told to do; each command loads only what it needs."""
