"""What a call to AWS fails with -> what a person can do, and whether the server may have done what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from wafermon.interfaces import RetryableError
from wafermon.model.errors import printable


class CallFailed(RetryableError):
    """One call failed. Its text is the same whenever that happens again."""

    def __init__(
        self, text: str, *, code: str = "", status: int = 0, may_be_done: bool = True, renew: bool = False
    ) -> None:
        super().__init__(text)
        self.code = code
        """The service's own word for it; empty where nothing was answered."""
        self.status = status
        """Of HTTP; 0 where nothing was answered."""
        self.may_be_done = may_be_done
        """Whether the server may have done it, or may do it yet."""
        self.renew = renew
        """Whether other credentials may help: they are read anew."""


def failure_of(error: Exception, target: str) -> CallFailed:
    """`target` says which bucket or log group it is about."""
    if isinstance(error, ClientError):
        return _answered(error, target)
    for kinds, advice in _NOT_SENT:
        if isinstance(error, kinds):
            renew = isinstance(error, _CREDENTIALS)
            return CallFailed(f"{target}: {_said(error)}; {advice}", may_be_done=False, renew=renew)
    if isinstance(error, aws.ReadTimeoutError):
        return CallFailed(f"{target}: no answer in time; see why the server is slow, or raise the backend's `timeout`")
    if isinstance(error, aws.SSLError):
        return CallFailed(
            f"{target}: {_said(error)}; see that `ca_file` names the authority of the server's certificate"
        )
    if isinstance(error, aws.ConnectionClosedError):
        return CallFailed(f"{target}: the connection was lost; tried again")
    return CallFailed(f"{target}: {type(error).__name__}: {_said(error)}")


def _answered(error: ClientError, target: str) -> CallFailed:
    said = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(said.get("Code", ""))
    words = printable(said.get("Message") or f"status {status}").rstrip(".")
    advice = (
        _ADVICE.get(code) or _OF_STATUS.get(status) or ("the server fails: look at its log" if status >= 500 else "")
    )
    text = f"{target}: {words} ({code or status})" + (f"; {advice}" if advice else "")
    may_be_done = not 400 <= status < 500 or status in _UNCERTAIN
    return CallFailed(text, code=code, status=status, may_be_done=may_be_done, renew=code in _RENEW)


def _said(error: Exception) -> str:
    return printable(" ".join(str(error).split())).rstrip(".")


_UNCERTAIN = {408, 409, 412, 425, 429, 499}
"""Answers of a proxy, or about another request: they don't tell that nothing was done."""
_CREDENTIALS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.ProfileNotFound,
    aws.ConfigNotFound, aws.ConfigParseError, aws.TokenRetrievalError,
)  # fmt: skip
_NOT_SENT: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (_CREDENTIALS, 'give credentials: see docs/backends/s3.md, "Credentials"'),
    (aws.NoRegionError, "set `region`"),
    (aws.EndpointConnectionError, "see that the server runs and listens there, and that its name resolves"),
    (aws.ConnectTimeoutError, "see that the server can be reached: firewalls, routes, `endpoint_url`"),
    (aws.ProxyConnectionError, "look at HTTPS_PROXY and NO_PROXY in the sidecar's environment"),
    (aws.ParamValidationError, "AWS's library refuses to ask that: correct the config"),
)
"""Kinds of error that come before anything has been sent, and what to do."""
_RENEW = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException",
    "InvalidToken", "RequestExpired", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException",
}  # fmt: skip
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(_RENEW, "correct the credentials; they are read again at each try"),
    "AccessDenied": "grant what the page's IAM policy has",
    "AccessDeniedException": "grant what the page's IAM policy has",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set `region`",
    "EntityTooLarge": "lower the backend's batch.bytes",
    "IllegalLocationConstraintException": "the bucket is in another region: set `region`",
    "InvalidBucketName": "name another bucket",
    "KMS.DisabledException": "enable the key, or name another in `kms_key`",
    "KMS.NotFoundException": "name another key in `kms_key`",
    "NoSuchBucket": "create the bucket, or name another one",
    "NotImplemented": "the server does not know what is asked for: try `checksum: md5`, then `conditional: false`",
    "PermanentRedirect": "the bucket is in another region: set `region`",
    "QuotaExceeded": "make room in the bucket, or raise its quota",
    "RequestTimeTooSkewed": "set this machine's clock, and keep it by NTP",
    "SlowDown": "the server wants fewer requests: raise batch.bytes and batch.age if it stays so",
    "Throttling": "tried again; raise batch.bytes and batch.age if it stays so",
    "ThrottlingException": "tried again; raise batch.bytes and batch.age if it stays so",
    "XAmzContentChecksumMismatch": "the server does not know the newer checksums: try `checksum: md5`",
}
_OF_STATUS: Mapping[int, str] = {
    301: "the bucket is in another region: set `region`",
    # A HEAD has no body: S3 says no more than that.
    403: "correct the credentials, or grant what the page's IAM policy has; without s3:ListBucket a missing object looks like a forbidden one",
    501: "the server does not know what is asked for: try `checksum: md5`, then `conditional: false`",
}


def is_of_aws(error: Exception) -> bool:
    """Whether `failure_of` knows its like."""
    return isinstance(error, (BotoCoreError, ClientError))
