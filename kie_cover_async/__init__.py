"""An asyncio client for KIE.ai's Suno cover images."""

from ._version import __version__
from .api import structure_details, unstructure_details
from .bulk import CoverOutcome, OutcomeStream
from .client import CoverClient
from .errors import (
    ApiError,
    AuthenticationError,
    ClientClosedError,
    ConnectionSetupError,
    CoverAlreadyExistsError,
    CoverFailedError,
    CoverTimeoutError,
    DownloadError,
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidTaskIdError,
    KieCoverError,
    MaintenanceError,
    OtherApiError,
    RateLimitedError,
    ServerError,
    SignatureError,
    TaskNotFoundError,
    TransportError,
)
from .models import CoverDetails, CoverResponse, CoverState
from .rate_limiter import RateLimiter
from .retry import RetryPolicy
from .schedule import AdaptiveSchedule, ExponentialSchedule, Schedule

__all__ = [
    "AdaptiveSchedule",
    "ApiError",
    "AuthenticationError",
    "ClientClosedError",
    "ConnectionSetupError",
    "CoverAlreadyExistsError",
    "CoverClient",
    "CoverDetails",
    "CoverFailedError",
    "CoverOutcome",
    "CoverResponse",
    "CoverState",
    "CoverTimeoutError",
    "DownloadError",
    "ExponentialSchedule",
    "ForbiddenError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "InvalidResponseError",
    "InvalidTaskIdError",
    "KieCoverError",
    "MaintenanceError",
    "OtherApiError",
    "OutcomeStream",
    "RateLimitedError",
    "RateLimiter",
    "RetryPolicy",
    "Schedule",
    "ServerError",
    "SignatureError",
    "TaskNotFoundError",
    "TransportError",
    "__version__",
    "structure_details",
    "unstructure_details",
]
