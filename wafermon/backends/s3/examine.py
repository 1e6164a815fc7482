"""Whether the bucket can be used, for `wafermon doctor`. Blocks."""

from __future__ import annotations

from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.s3.bucket import Buckets
from wafermon.backends.s3.options import S3Options

SECONDS = 10.0
"""For each wait for the server."""


def problems(options: S3Options) -> list[str]:
    """What is wrong, each with what to do; none where it can be used."""
    buckets = Buckets(options, SECONDS)
    try:
        problem = buckets.try_out()
        buckets.try_to_look()
    except CallFailed as error:
        return [f"{error}; see docs/backends/s3.md"]
    finally:
        buckets.close()
    return [problem] if problem else []
