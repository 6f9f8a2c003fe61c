"""Every error that a caller can meet, as data.

Each holds a status, OpenAI's type, code and parameter, and what helps a client to decide on a retry.
"""

from collections.abc import Mapping
from math import ceil
from typing import Final


class CodedError(Exception):
    """An error with a place in OpenAI's error object (`{"error": {"message", "type", "param", "code"}}`).

    `retry_after` is in seconds and becomes `Retry-After`; `should_retry` becomes `x-should-retry`,
    which OpenAI's SDKs obey before they look at the status.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    should_retry: bool | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """Return OpenAI's error object, all four keys present."""
        return {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code},
        }

    def headers(self) -> Mapping[str, str]:
        """Return the response headers that tell an SDK whether and when to try again."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, ceil(self.retry_after)))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers


class ConfigurationError(Exception):
    """A setting that cannot be used: said at the start, in words for the operator."""


# The caller's doing ------------------------------------------------------------------------------------


SAID: Final = 1000
"""Characters of a message, or of a parameter's path: both may quote what the client has sent."""


class InvalidRequest(CodedError):
    """A request that does not fit the API; `param` is the path of what is wrong."""

    status, type = 400, "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(_short(message), param=param and _short(param), retry_after=retry_after)


def _short(text: str) -> str:
    return text if len(text) <= SAID else f"{text[:SAID]}…"


class UnsupportedParameter(InvalidRequest):
    """A parameter that cannot be honoured and whose absence would change the meaning of the answer."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The conversation no longer fits the model's context window."""

    code = "context_length_exceeded"


class PreviousResponseNotFound(InvalidRequest):
    """`previous_response_id` names no response that can be gone on after."""

    code = "previous_response_not_found"


class InvalidApiKey(InvalidRequest):
    """A missing or wrong `Authorization: Bearer` key."""

    status, code = 401, "invalid_api_key"


class Forbidden(InvalidRequest):
    """What the operator does not allow.

    A Host or Origin that is not on the list (a web page of somebody else's, or DNS rebinding), or a choice of
    the client's beyond the settings.
    """

    status, code = 403, "forbidden"


class UnsupportedMediaType(InvalidRequest):
    """A body that is not JSON by its Content-Type."""

    status, code = 415, "unsupported_media_type"


class NotFound(InvalidRequest):
    """Nothing is at this path, or no conversation has this id."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """A model that is neither a profile nor one of the CLI's."""

    code = "model_not_found"


class WorkspaceGone(InvalidRequest):
    """The directory that a conversation works in no longer exists."""

    status, code = 409, "workspace_gone"
    should_retry = False


class IdempotencyKeyReused(InvalidRequest):
    """An `Idempotency-Key` that stands for another request's turn."""

    status, code = 409, "idempotency_key_reused"
    should_retry = False


class KeyRateLimited(CodedError):
    """More requests of a client's key than CLAUDE_CODED_KEY_RATE allows; the type is OpenAI's for that."""

    status, type, code = 429, "requests", "rate_limit_exceeded"


class TooManyTurns(CodedError):
    """More turns of a client's key at once than CLAUDE_CODED_KEY_CONCURRENCY allows."""

    status, type, code = 429, "rate_limit_exceeded", "concurrency_limit_exceeded"


# The daemon's state ------------------------------------------------------------------------------------


class QueueFull(CodedError):
    """Every worker is busy and no place is left to wait, or the wait was too long."""

    status, type, code = 429, "rate_limit_exceeded", "queue_full"


class Draining(CodedError):
    """The daemon finishes what runs and takes nothing new."""

    status, code = 503, "draining"


class Evicted(CodedError):
    """An operator or a `DELETE` released the conversation while this request ran or waited."""

    status, type, code = 409, "invalid_request_error", "conversation_evicted"
    should_retry = False


HELD: Final = "an operator has this conversation open in a terminal; try again later"


class Held(CodedError):
    """An operator has the conversation open in a terminal."""

    status, type, code = 409, "invalid_request_error", "conversation_attached"
    should_retry = False


class Interrupted(CodedError):
    """An operator interrupted the turn."""

    status, type, code = 409, "invalid_request_error", "turn_interrupted"
    should_retry = False


class WorkerStartFailed(CodedError):
    """The CLI would not start; the message holds what it said on stderr."""

    status, code = 503, "worker_start_failed"


class WorkerDied(CodedError):
    """The CLI ended in the middle of a turn."""

    status, code = 502, "worker_died"


class NotRecorded(CodedError):
    """The daemon's database cannot be written or read: disk full, or the like."""

    status, code = 500, "not_recorded"


class TurnTimeout(CodedError):
    """The turn ran longer than the operator allows and was interrupted."""

    status, code, should_retry = 504, "turn_timeout", False


class ToolCallMissing(CodedError):
    """The model called none of the tools, one of which the client had asked it to."""

    status, code, should_retry = 502, "tool_call_missing", False


class SchemaNotMet(CodedError):
    """The model gave no answer that fits the schema which the client had asked for."""

    status, code, should_retry = 502, "schema_not_met", False


class SessionMissing(WorkerStartFailed):
    """The CLI has no transcript of the session that it was to resume."""


class ParkLost(CodedError):
    """The turn that waited for its client's tools is no more."""

    status, code = 502, "worker_died"


class RewindRefused(CodedError):
    """The session could not be taken back to where the conversation stands."""

    status, code = 502, "worker_died"


# Anthropic's API behind the CLI ------------------------------------------------------------------------


class UpstreamError(CodedError):
    """The model's API failed."""

    status, code = 502, "upstream_error"


class UpstreamAuthentication(UpstreamError):
    """The model's API refused the daemon's own key or login: no retry by a client can help."""

    code, should_retry = "upstream_authentication", False


class UpstreamOverloaded(UpstreamError):
    """The model's API has no capacity (529), also after the CLI's own tries."""

    status, code = 503, "overloaded"


class UpstreamRateLimited(UpstreamError):
    """The model's API limits the daemon's key (429), also after the CLI's own tries."""

    status, type, code = 429, "rate_limit_exceeded", "rate_limit_exceeded"
