"""The agent beside the meters: read, validate, sign, buffer, publish."""
