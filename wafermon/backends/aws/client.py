"""One client of one service: made when it is first needed, and anew where its credentials have gone. It blocks, in one thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from wafermon.backends.aws.connections import Connections
from wafermon.backends.aws.failures import CallFailed, failure_of, is_of_aws
from wafermon.backends.aws.options import AwsOptions
from wafermon.interfaces import RetryableError

CONNECT_SECONDS = 10.0
DEFAULT_REGION = "us-east-1"
"""What servers that are not AWS take, where they look at all."""
NOT_READ = "BadRequest"
"""What a server says of a request that is none."""

# Whatever it has to say comes back as an error.
logging.getLogger("botocore").addHandler(logging.NullHandler())


class Client:
    """Calls by name. `abort` may come from any thread."""

    def __init__(self, service: str, options: AwsOptions, timeout: float, target: str, **config: Any) -> None:
        """`timeout` in seconds is for each wait for the server; `target` is what errors say first; `config` goes to botocore."""
        self._service = service
        self._options = options
        self._target = target
        self._config = {
            "connect_timeout": min(CONNECT_SECONDS, timeout),
            "read_timeout": timeout,
            "retries": {"total_max_attempts": 1},  # the caller tries again, and knows what that means
            "user_agent_extra": "wafermon",
            **config,
        }
        self._lock = Lock()
        self._client: Any = None
        self._connections: Connections | None = None
        self._aborted = False

    def call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """A service's answer. Raises CallFailed.

        A server that refuses a conditional write without reading its body may take that body for the next request. So what it can't
        read is asked once more, on a new connection: nothing was done."""
        try:
            return self._call(operation, arguments)
        except CallFailed as failure:
            if failure.code != NOT_READ:
                raise
        self.drop()
        return self._call(operation, arguments)

    def _call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._aborted:
            raise CallFailed(f"{self._target}: closed meanwhile", may_be_done=False)
        try:
            answer = getattr(self._ready(), operation)(**arguments)
            return {**answer, "Body": answer["Body"].read()} if "Body" in answer else answer
        except RetryableError:
            raise
        except Exception as error:
            failure = self._failure(error)
            if failure.renew:
                self.drop()
            raise failure from error

    def _failure(self, error: Exception) -> CallFailed:
        if self._aborted:
            return CallFailed(f"{self._target}: closed meanwhile")
        if not is_of_aws(error) and not isinstance(error, (OSError, ValueError)):
            raise error
        return failure_of(error, self._target)

    def _ready(self) -> Any:
        if self._client is None:
            client, connections = self._make(), Connections()
            connections.watch(client)
            with self._lock:
                self._client, self._connections = client, connections
                if self._aborted:
                    connections.end()
        return self._client

    def _make(self) -> Any:
        given = self._options
        for key in ("ca_file", "credentials_file"):
            path = getattr(given, key)
            if path is not None and not os.access(path, os.R_OK):
                text = f"{self._target}: {key} {path} can't be read; name a file that the sidecar can read"
                raise CallFailed(text, may_be_done=False)
        core = botocore.session.Session(profile=given.profile)
        if given.credentials_file is not None:
            core.set_config_variable("credentials_file", str(given.credentials_file))
        session = boto3.session.Session(botocore_session=core)
        region = given.region or session.region_name or (DEFAULT_REGION if given.endpoint_url else None)
        return session.client(
            self._service,
            region_name=region,
            endpoint_url=given.endpoint_url,
            verify=str(given.ca_file) if given.ca_file is not None else None,
            config=Config(**self._config),
        )

    def abort(self) -> None:
        """Let what is under way fail, and all that comes after it."""
        with self._lock:
            self._aborted = True
            if self._connections is not None:
                self._connections.end()

    def drop(self) -> None:
        """Release connections and credentials; the next call makes them anew."""
        with self._lock:
            client, self._client, self._connections = self._client, None, None
        if client is not None:
            with suppress(Exception):
                client.close()
