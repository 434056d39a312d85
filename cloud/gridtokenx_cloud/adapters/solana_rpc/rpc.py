"""JSON-RPC calls that either return a result or raise one of two errors.

`AsyncClient`'s own methods return bare integers for unknown error codes, panic past
`except Exception` on some known ones, and send twice on a time-out; `send_rpc_request` with
transport retries off does none of that.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pydantic import ValidationError as ReplyError
from solana.exceptions import SolanaRpcException
from solana.rpc.async_api import AsyncClient
from solana.rpc.jsonrpc import JsonRpcRequest, SolanaJsonRpcError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from gridtokenx_cloud.errors import PermanentError, RpcUnavailableError

# Too many requests (in its spellings), node behind, block or status not there yet, slot skipped.
_BUSY_CODES = frozenset({429, -32429, -32004, -32005, -32007, -32014, -32016})
_MAX_RETRY_AFTER_S = 30.0
_TRIES = 3
_BACKOFF = wait_random_exponential(multiplier=0.5, max=4)


class RpcRefusedError(PermanentError):
    """A node understood the request and refused it."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method} was refused with code {code}: {message}")
        self.code = code


class RpcBusyError(RpcUnavailableError):
    """A node asks to be left alone for a while."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class JsonRpc(Protocol):
    """One way to a cluster."""

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result.

        Raises:
            RpcUnavailableError: No usable answer; nothing is known.
            RpcRefusedError: The node refused the request itself.
        """
        ...


class HttpRpc:
    """One endpoint, over `AsyncClient`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._client = AsyncClient(url, timeout=timeout_s, max_transport_retries=0)
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)

    async def close(self) -> None:
        """Close the connections; the object is of no use afterwards."""
        await self._client.close()

    async def call(self, method: str, *params: Any) -> Any:
        """See `JsonRpc.call`."""
        request = JsonRpcRequest(id=next(self._ids), method=method, params=list(params))
        try:
            # The client's time-out is per network step; a dripping answer needs this one.
            async with asyncio.timeout(2 * self._timeout_s):
                return await self._client.send_rpc_request(request, Any)
        except SolanaJsonRpcError as exc:
            raise refusal(method, exc.code, exc.message) from exc
        except SolanaRpcException as exc:
            # Without the cause: its text holds the whole URL, and often a key in it.
            raise RpcBusyError(
                f"{self._where}: no answer to {method}: {_cause(exc)}", _retry_after_s(exc)
            ) from None
        except TimeoutError as exc:
            raise RpcUnavailableError(f"{self._where}: {method} took too long") from exc
        except ReplyError as exc:
            raise RpcUnavailableError(f"{self._where}: {method}: no JSON-RPC reply") from exc

    @property
    def _where(self) -> str:
        # The path and the query often carry an access key.
        return self._url.split("?", 1)[0].split("/", 3)[2]


class FailoverRpc:
    """Several endpoints, the first that answers; one that failed is asked last from then on.

    A call is tried a few times, because work that takes many calls would otherwise begin anew
    with every lost one; longer trouble is the caller's to sit out.
    """

    def __init__(
        self,
        endpoints: Sequence[JsonRpc],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._endpoints = list(endpoints)
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(RpcUnavailableError),
            stop=stop_after_attempt(_TRIES),
            wait=_wait_s,
            sleep=sleep,
            reraise=True,
        )

    @property
    def endpoints(self) -> tuple[JsonRpc, ...]:
        """All of them, the preferred one first."""
        return tuple(self._endpoints)

    async def call(self, method: str, *params: Any) -> Any:
        """See `JsonRpc.call`."""
        # A copy: the object keeps count of its tries, and calls run side by side.
        return await self._retrying.copy()(self._once, method, *params)

    async def _once(self, method: str, *params: Any) -> Any:
        failure = RpcUnavailableError("no RPC endpoint; set GTX_CLOUD_SOLANA_RPC_URLS")
        for endpoint in self.endpoints:
            try:
                return await endpoint.call(method, *params)
            except RpcUnavailableError as exc:
                failure = exc
                self._endpoints.remove(endpoint)
                self._endpoints.append(endpoint)
        raise failure


def connect(urls: Sequence[str], timeout_s: float) -> tuple[FailoverRpc, list[HttpRpc]]:
    """Return the way to a cluster and the endpoints to close at the end."""
    endpoints = [HttpRpc(url, timeout_s) for url in urls]
    return FailoverRpc(endpoints), endpoints


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), getattr(error, "retry_after_s", 0.0))


def refusal(method: str, code: int, message: str) -> RpcRefusedError | RpcUnavailableError:
    """Return the error for a JSON-RPC error reply."""
    if code in _BUSY_CODES:
        return RpcBusyError(f"{method}: code {code}: {message}")
    if code == -32603:
        return RpcUnavailableError(f"{method}: internal error of the node: {message}")
    return RpcRefusedError(method, code, message)


def _cause(exc: SolanaRpcException) -> str:
    response = getattr(exc.__cause__, "response", None)
    return type(exc.__cause__).__name__ if response is None else f"HTTP {response.status_code}"


def _retry_after_s(exc: SolanaRpcException) -> float:
    response = getattr(exc.__cause__, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else 0.0
