"""Whether the log group can be used, for `wafermon doctor`. Blocks; reads only."""

from __future__ import annotations

from wafermon.backends.aws.client import Client
from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.cloudwatch.options import CloudWatchOptions

SECONDS = 10.0
"""For each wait for the service."""


def problems(options: CloudWatchOptions) -> list[str]:
    """What is wrong, each with what to do; none where it can be used."""
    client = Client("logs", options, SECONDS, options.place)
    try:
        client.call("describe_log_streams", logGroupName=options.log_group, limit=1)
    except CallFailed as error:
        if error.code != "ResourceNotFoundException":
            return [f"{error}; see docs/backends/cloudwatch.md"]
        return [] if options.create_group else [f"{options.place} is not there; create it, or set `create_group: true`"]
    finally:
        client.drop()
    return []
