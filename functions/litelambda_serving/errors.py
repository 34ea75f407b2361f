"""Every error the serving side raises on purpose, without any word of HTTP.

    ServingError
    ├── RequestError                 the client's fault
    │   ├── MalformedRequestError    the body or path cannot be read as the protocol says
    │   ├── MethodNotAllowedError    the path exists, the method does not
    │   ├── TensorError              values that do not fit the tensor they are for
    │   ├── PayloadTooLargeError     beyond a limit that the message names
    │   ├── UnsupportedEncodingError the body is compressed in a way that is not read here
    │   ├── UnsupportedMediaTypeError the body has a content type that its route does not read
    │   ├── ModelNotFoundError       no such model or version
    │   ├── AccessDeniedError        the caller lacks the right
    │   └── UnsupportedError         part of the protocol, but not supported here
    ├── SettingsError                the function's environment is wrong
    ├── StoreError                   the store did not give what it should
    │   ├── ObjectNotFoundError      no object at that key
    │   ├── StoreAccessError         the store refused the credentials or their rights
    │   ├── StoreLocationError       the bucket does not exist, or is in another region
    │   ├── StoreUnavailableError    transient: throttled, timed out, cut short, 5xx
    │   └── StoreConflictError       a create-only or compare-and-swap write lost
    ├── ArtifactError                the bytes came but must not be served
    │   ├── ManifestError            not a manifest this reader understands
    │   ├── DigestError              size or SHA-256 differs from the pinned one
    │   ├── ModelTooLargeError       beyond the function's memory; the message says what to set
    │   └── TrustError               unsigned, signed by another key, rolled back, or it cannot be decrypted
    ├── CustomCodeError              the function's own code failed; the message has its traceback
    ├── BusyError                    a server has as many requests as it takes
    ├── LateError                    a server's time for a request is over
    └── LiteRtError                  the runtime refused a model or a run
        └── RuntimeLibraryError      libLiteRt.so is missing or is not for this machine

    LeanRuntimeError                 what the lean runtime client reports under a type of its own

`litelambda_serving.http.status_of` maps these to HTTP statuses, in one place.
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of all errors raised by `litelambda_serving`."""


class RequestError(ServingError):
    """The request cannot be answered as it is: the client can correct it."""


class MalformedRequestError(RequestError):
    """The path or body cannot be read as the protocol says."""


class MethodNotAllowedError(RequestError):
    """The path exists, but not under this HTTP method.

    Attributes:
        allowed: the methods that it has, separated by commas.
    """

    def __init__(self, message: str, allowed: str = "GET, HEAD, OPTIONS") -> None:
        super().__init__(message)
        self.allowed = allowed


class TensorError(RequestError):
    """Values that do not fit their tensor."""


class PayloadTooLargeError(RequestError):
    """The request or its answer is beyond a limit that the message names."""


class UnsupportedEncodingError(RequestError):
    """The body is compressed in a way that is not read here."""


class UnsupportedMediaTypeError(RequestError):
    """The body has a content type that its route does not read."""


class ModelNotFoundError(RequestError):
    """No such model or version in the store."""


class AccessDeniedError(RequestError):
    """The function's access policy does not give the caller this right.

    Attributes:
        caller, action, model: who was refused what; the last two are "" where everything was.
    """

    def __init__(self, message: str, caller: str, action: str = "", model: str = "") -> None:
        super().__init__(message)
        self.caller = caller
        self.action = action
        self.model = model


class UnsupportedError(RequestError):
    """Part of the protocol, but not supported here."""


class SettingsError(ServingError):
    """An environment variable of the function is missing or wrong."""


class StoreError(ServingError):
    """The store did not give what was asked of it."""


class ObjectNotFoundError(StoreError):
    """There is no object at that key."""


class StoreAccessError(StoreError):
    """The store refused the credentials, or they lack the right."""


class StoreLocationError(StoreError):
    """The store's bucket does not exist, or is in another region than it was asked for in."""


class StoreUnavailableError(StoreError):
    """A transient failure: throttled, timed out, cut short or a server error."""


class StoreConflictError(StoreError):
    """A create-only or compare-and-swap write lost against another writer."""


class ArtifactError(ServingError):
    """The artifact's bytes came, but must not be served."""


class ManifestError(ArtifactError):
    """The manifest is not one that this reader understands."""


class DigestError(ArtifactError):
    """Size or SHA-256 differs from the pinned one."""


class ModelTooLargeError(ArtifactError):
    """The model is beyond the function's memory."""


class TrustError(ArtifactError):
    """The version is unsigned, signed by another key or rolled back, or it cannot be decrypted.

    Attributes:
        signature: `unsigned` or `invalid` where the signature is the reason; "" where it is not.
    """

    def __init__(self, message: str, signature: str = "") -> None:
        super().__init__(message)
        self.signature = signature


class CustomCodeError(ServingError):
    """The function's own code cannot be imported, failed, or returned something else than it should."""


class BusyError(ServingError):
    """A server has as many requests as it takes."""


class LateError(ServingError):
    """A server's time for a request is over."""


class LiteRtError(ServingError):
    """The LiteRT runtime refused a model or a run.

    Attributes:
        in_operator: whether an operator failed while the model ran: its input values may be the reason.
        rows: numbers of the rows that were run.
    """

    in_operator = False
    rows = range(1)


class RuntimeLibraryError(LiteRtError):
    """libLiteRt.so is missing or is not for this machine."""


class LeanRuntimeError(Exception):
    """A failure between Lambda's Runtime API and the handler.

    Attributes:
        error_type: the stock client's name for it, such as "Runtime.HandlerNotFound".
    """

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
