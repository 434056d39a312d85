"""Two branches: wait and retry, or call a human."""


class CloudError(Exception):
    """Base of all errors the cloud raises on purpose."""


class TransientError(CloudError):
    """Waiting may help; the loop retries with backoff."""


class RpcUnavailableError(TransientError):
    """No RPC endpoint gave a usable answer; nothing is known about the chain."""


class StoreBusyError(TransientError):
    """The database did not answer in time."""


class ArchiveUnavailableError(TransientError):
    """The archive's folder cannot be read or written now; no reading has left the store for it."""


class BrokerDownError(TransientError):
    """The broker cannot be reached, or closed the connection."""


class SignerUnavailableError(TransientError):
    """The service that holds a key did not answer; nothing was signed that left this process."""


class EventsBusyError(TransientError):
    """The events server did not answer in time."""


class FloodedError(TransientError):
    """A sender is above its rate; *wait_s* is when there is room again."""

    def __init__(self, sender: str, wait_s: int) -> None:
        super().__init__(f"{sender} sends faster than it may; go on in {wait_s} s")
        self.wait_s = wait_s


class PermanentError(CloudError):
    """Waiting cannot help; an operator must change something."""


class ConfigError(PermanentError):
    """The configuration is wrong; *faults* lists every fault at once, one sentence each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class FixedSettingError(ConfigError):
    """The setting exists, but the store and the chain are tied to it."""


class ValidationError(PermanentError):
    """A value breaks a rule.

    Attributes:
        code: Stable code, such as `AmountExceedsMaximum`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotFoundError(PermanentError):
    """The named thing is not in the registry or the store."""


class SchemaError(PermanentError):
    """The store has another schema than this program; `gtx-cloud migrate` brings it up."""


class ChainMismatchError(PermanentError):
    """The chain is not the configured one: genesis, mint, decimals, authority or program differ."""


class SigningKeyError(PermanentError):
    """A key cannot be read, is readable by others, or refuses to sign."""


class StoreRefusedError(PermanentError):
    """The store takes this row never: a rule of its schema or the range of a type forbids it."""


class DisputedBatchError(PermanentError):
    """The chain says something about a batch that the store cannot explain; a human must look."""


class ClaimsDifferError(DisputedBatchError):
    """What a batch's readings are worth is not what its recipients would get; nothing was sent."""


class EmptyBatchError(PermanentError):
    """A batch without recipients was to be minted."""


class BatchTooLargeError(PermanentError):
    """More recipients than one transaction carries."""

    def __init__(self, size: int, max_size: int) -> None:
        super().__init__(f"{size} recipients; one transaction carries {max_size}")
        self.size = size
        self.max_size = max_size


class TransactionTooLargeError(PermanentError):
    """The bytes of a transaction exceed what the cluster takes."""
