"""Every error raised on purpose.

    KieCoverError
    ├── TransportError             no usable answer: connection, timeout, reset          transient
    │   └── ConnectionSetupError   no connection until the setup is changed
    ├── InvalidResponseError       an answer that cannot be read                         transient
    ├── InvalidTaskIdError         also a ValueError
    ├── ClientClosedError          also a RuntimeError
    ├── ApiError                   the API said no: code, msg, http_status
    │   ├── AuthenticationError
    │   ├── ForbiddenError
    │   ├── InsufficientCreditsError
    │   ├── TaskNotFoundError
    │   ├── InvalidRequestError
    │   ├── CoverAlreadyExistsError
    │   ├── RateLimitedError                                                             transient
    │   ├── MaintenanceError                                                             transient
    │   └── ServerError                                                                  transient
    ├── CoverFailedError           the job ended in failure
    ├── CoverTimeoutError          also a TimeoutError
    ├── SignatureError
    └── DownloadError

Errors hold facts; the message is made from them. They can be copied and pickled.

`root` has what all share, `answers` what comes of one request, `outcomes` what comes of a job or of
our own refusal.
"""

from .answers import (
    ApiError,
    AuthenticationError,
    ConnectionSetupError,
    CoverAlreadyExistsError,
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    InvalidResponseError,
    MaintenanceError,
    RateLimitedError,
    ServerError,
    TaskNotFoundError,
    TransportError,
)
from .outcomes import (
    ClientClosedError,
    CoverFailedError,
    CoverTimeoutError,
    DownloadError,
    InvalidTaskIdError,
    SignatureError,
)
from .root import KieCoverError

__all__ = [
    "ApiError",
    "AuthenticationError",
    "ClientClosedError",
    "ConnectionSetupError",
    "CoverAlreadyExistsError",
    "CoverFailedError",
    "CoverTimeoutError",
    "DownloadError",
    "ForbiddenError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "InvalidResponseError",
    "InvalidTaskIdError",
    "KieCoverError",
    "MaintenanceError",
    "RateLimitedError",
    "ServerError",
    "SignatureError",
    "TaskNotFoundError",
    "TransportError",
]
