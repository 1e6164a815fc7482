"""What AWS's library fails with is said with what to do, and whether the request may have been carried out."""

from __future__ import annotations

import pytest
from botocore import exceptions as aws
from botocore.exceptions import ClientError

from wafermon.backends.aws.failures import failure_of

URL = "https://s3.example.org"


def answered(status: int, code: str = "", message: str = "") -> Exception:
    said = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "4711"},
    }
    error: Exception = ClientError(said, "PutObject")
    return error


@pytest.mark.parametrize(("error", "words", "may_be_done"), [
    (answered(404, "NoSuchBucket", "The bucket does not exist"), "create the bucket", False),
    (answered(403, "AccessDenied", "Access Denied"), "IAM policy", False),
    (answered(403), "s3:ListBucket", False),
    (answered(403, "RequestTimeTooSkewed", "The difference is too large."), "NTP", False),
    (answered(400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'"), "set `region`", False),
    (answered(501, "NotImplemented", "A header implies functionality that is not there"), "`conditional: false`", True),
    (answered(503, "SlowDown", "Please reduce your request rate."), "raise batch.bytes", True),
    (answered(500, "InternalError", "We encountered an internal error."), "the server fails", True),
    (answered(409, "ConditionalRequestConflict", "Another request is under way"), "(ConditionalRequestConflict)", True),
    (answered(408), "(408)", True),
    (aws.ReadTimeoutError(endpoint_url=URL), "no answer in time", True),
    (aws.ConnectionClosedError(endpoint_url=URL), "the connection was lost", True),
    (aws.EndpointConnectionError(endpoint_url=URL), "runs and listens there", False),
    (aws.ConnectTimeoutError(endpoint_url=URL), "can be reached", False),
    (aws.SSLError(endpoint_url=URL, error="bad certificate"), "`ca_file`", True),
    (aws.NoCredentialsError(), "give credentials", False),
    (aws.NoRegionError(), "set `region`", False),
    (aws.HTTPClientError(error="odd"), "HTTPClientError", True),
])  # fmt: skip
def test_what_to_do(error: Exception, words: str, may_be_done: bool) -> None:
    failure = failure_of(error, "s3://fab")
    assert str(failure).startswith("s3://fab: ") and words in str(failure)
    assert "4711" not in str(failure), "the same failure has the same text each time"
    assert failure.may_be_done is may_be_done


def test_credentials_that_are_refused_are_read_again() -> None:
    assert failure_of(answered(400, "ExpiredToken", "expired"), "x").renew
    assert failure_of(aws.NoCredentialsError(), "x").renew
    assert not failure_of(answered(503, "SlowDown", ""), "x").renew
