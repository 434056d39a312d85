"""JSON-RPC calls that either return a result or raise one of two errors.

`AsyncClient`'s own methods return bare integers for unknown error codes, panic past
`except Exception` on some known ones, and send twice on a time-out; `send_rpc_request` with
transport retries off does none of that.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
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

from gridtokenx_cloud.adapters.solana_rpc.health import Health
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


class RatedEndpoint:
    """An endpoint whose answers are rated, and which is left alone for as long as it asks."""

    def __init__(self, endpoint: JsonRpc, now_s: Callable[[], float]) -> None:
        self.health = Health()
        self._endpoint = endpoint
        self._now_s = now_s

    def rank(self) -> tuple[bool, int]:
        """See `Health.rank`."""
        return self.health.rank(self._now_s())

    async def call(self, method: str, *params: Any) -> Any:
        """See `JsonRpc.call`; a node that rests is not asked."""
        asked_s = self._now_s()
        if (rest_s := self.health.rest_s(asked_s)) > 0:
            raise RpcBusyError(f"{method}: the node asks for {rest_s:.1f} s of peace", rest_s)
        try:
            result = await self._endpoint.call(method, *params)
        except RpcUnavailableError as exc:
            self.health.failed(self._now_s(), _asked_rest_s(exc))
            raise
        except RpcRefusedError:
            self.health.answered(self._now_s(), self._now_s() - asked_s)
            raise
        self.health.answered(self._now_s(), self._now_s() - asked_s)
        return result


class FailoverRpc:
    """Several endpoints, the one in the best health first; equal ones as they are configured.

    A call is tried a few times, because work that takes many calls would otherwise begin anew
    with every lost one; longer trouble is the caller's to sit out.
    """

    def __init__(
        self,
        endpoints: Sequence[JsonRpc],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = [RatedEndpoint(endpoint, now_s) for endpoint in endpoints]
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(RpcUnavailableError),
            stop=stop_after_attempt(_TRIES),
            wait=_wait_s,
            sleep=sleep,
            reraise=True,
        )

    @property
    def endpoints(self) -> tuple[JsonRpc, ...]:
        """All of them, as they are configured."""
        return tuple(self._endpoints)

    async def call(self, method: str, *params: Any) -> Any:
        """See `JsonRpc.call`."""
        # A copy: the object keeps count of its tries, and calls run side by side.
        return await self._retrying.copy()(self._once, method, *params)

    async def _once(self, method: str, *params: Any) -> Any:
        failures: list[RpcUnavailableError] = []
        for endpoint in sorted(self._endpoints, key=RatedEndpoint.rank):
            try:
                return await endpoint.call(method, *params)
            except RpcUnavailableError as exc:
                failures.append(exc)
        if not failures:
            raise RpcUnavailableError("no RPC endpoint; set GTX_CLOUD_SOLANA_RPC_URLS")
        # The next try waits only until the first of them may be asked again.
        raise min(failures, key=_asked_rest_s)


def connect(urls: Sequence[str], timeout_s: float) -> tuple[FailoverRpc, list[HttpRpc]]:
    """Return the way to a cluster and the endpoints to close at the end."""
    endpoints = [HttpRpc(url, timeout_s) for url in urls]
    return FailoverRpc(endpoints), endpoints


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), _asked_rest_s(error))


def _asked_rest_s(error: BaseException | None) -> float:
    return error.retry_after_s if isinstance(error, RpcBusyError) else 0.0


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
    if response is None:
        return 0.0
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        # The header's other form is a moment, by the clock of the node (RFC 9110, 10.2.3).
        until = parsedate_to_datetime(text) - parsedate_to_datetime(response.headers["Date"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return min(max(0.0, until.total_seconds()), _MAX_RETRY_AFTER_S)
