"""What each gateway of a batch is told once the batch is committed; pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gridtokenx_cloud.opened import gateway_stream
from gridtokenx_cloud.ports.ingest import StreamKey
from gridtokenx_wire.receipt import LineRejection, Ranges, Receipt
from gridtokenx_wire.record import GATEWAY_STREAM


@dataclass(slots=True)
class Answers:
    """Collects, gateway by gateway, what is stored and what is refused."""

    _durable: dict[str, set[StreamKey]] = field(default_factory=lambda: defaultdict(set))
    _rejected: dict[str, list[LineRejection]] = field(default_factory=lambda: defaultdict(list))

    def stored(self, gateway_id: str, key: StreamKey) -> None:
        """Note that a line of *gateway_id* is in the store."""
        self._durable[gateway_id].add(key)

    def refused(self, gateway_id: str, rejection: LineRejection) -> None:
        """Note that a line of *gateway_id* is refused for good."""
        self._rejected[gateway_id].append(rejection)

    def receipts(self, ranges: Mapping[StreamKey, Ranges], now_ms: int) -> Iterator[Receipt]:
        """Yield one receipt for each gateway."""
        for gateway_id in sorted({*self._durable, *self._rejected}):
            durable: dict[str, dict[str, Ranges]] = {}
            for stream, epoch in sorted(self._durable[gateway_id]):
                name = GATEWAY_STREAM if stream == gateway_stream(gateway_id) else stream
                durable.setdefault(name, {})[epoch] = ranges[stream, epoch]
            yield Receipt(
                gateway_id=gateway_id,
                issued_ms=now_ms,
                durable=durable,
                rejected=tuple(self._rejected[gateway_id]),
            )
