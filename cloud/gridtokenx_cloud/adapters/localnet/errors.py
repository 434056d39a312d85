"""How a request fails, in the words of JSON-RPC and of the wire."""

from typing import Any

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
PREFLIGHT_FAILED = -32002
NODE_UNHEALTHY = -32005
SIGNATURE_FAILED = -32003
VERSION_UNSUPPORTED = -32015
CONTEXT_SLOT_NOT_REACHED = -32016


class RpcError(Exception):
    """An answer with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class CutConnectionError(Exception):
    """The client gets no answer at all; *everyone* closes all other connections too."""

    def __init__(self, *, everyone: bool = False) -> None:
        super().__init__("connection cut on purpose")
        self.everyone = everyone
