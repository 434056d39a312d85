"""What may be wrong with bytes that claim to be ours."""


class WireError(Exception):
    """Base of all wire errors; *code* is the stable name shown on every surface."""

    code = "WireError"


class MalformedLineError(WireError):
    """The bytes are no canonical line of this contract."""

    code = "NotCanonical"


class UnsupportedVersionError(WireError):
    """The line is well formed but of a version this program does not know."""

    code = "WrongVersion"


class BadSignatureError(WireError):
    """The signature does not belong to these bytes and this key."""

    code = "BadSignature"


class BadTopicError(WireError):
    """The topic is none of this contract's."""

    code = "BadTopic"
