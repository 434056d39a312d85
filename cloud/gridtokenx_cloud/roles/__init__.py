"""The services of one process, each wired to its adapters and kept running by the supervisor."""
