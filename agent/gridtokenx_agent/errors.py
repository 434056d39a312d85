"""Two branches: wait and retry, or call a human."""

from typing import Literal

Heard = Literal["nothing", "garbage", "other_unit", "other_answer"]
"""What came instead of an answer: what to look for first when a meter is silent."""


class AgentError(Exception):
    """Base of all errors the agent raises on purpose."""


class TransientError(AgentError):
    """Waiting may help; the loop retries with backoff."""


class MeterTimeoutError(TransientError):
    """The meter did not answer in time, or not with an answer to this request.

    Attributes:
        heard: What came instead.
    """

    def __init__(self, message: str, heard: Heard = "nothing") -> None:
        super().__init__(message)
        self.heard: Heard = heard


class MeterBusyError(TransientError):
    """The meter or a gateway before it answered exception 4, 6, 0x0A or 0x0B.

    Attributes:
        code: The Modbus exception code; 0 when none came.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class BusDownError(TransientError):
    """The serial port or TCP endpoint cannot be opened, or was lost."""


class BrokerDownError(TransientError):
    """The broker cannot be reached, or closed the connection."""


class BufferFullError(TransientError):
    """The disk takes no more rows; slots wait in memory until it does."""


class PermanentError(AgentError):
    """Waiting cannot help; an operator must change something."""


class MeterRefusedError(PermanentError):
    """The meter answered exception 1, 2 or 3: it does not have these registers.

    Attributes:
        code: The Modbus exception code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ProfileError(PermanentError):
    """A meter profile is wrong, or does not fit what the meter sends."""


class ConfigError(PermanentError):
    """The configuration is wrong; *faults* lists every fault at once, one sentence each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class KeyFileError(PermanentError):
    """The gateway's key file is missing, readable by others, or no key."""


class BrokerRefusedError(PermanentError):
    """The broker refused the credentials or the client."""


class StoreError(PermanentError):
    """The buffer file cannot be used."""
