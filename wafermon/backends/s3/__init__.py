"""Messages as compressed JSON lines in objects of S3, or of a server with the same API; over boto3."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from zope.interface import implementer

from wafermon.interfaces import BackendContext, ConfigError, Fault, IBackend, IBackendFactory
from wafermon.model.settings import BatchLimits

if TYPE_CHECKING:
    from wafermon.backends.s3.options import S3Options


@implementer(IBackendFactory)
class S3Factory:
    """`plugin: s3`. Its library is an extra: a config that does not name it does not need it."""

    name = "s3"
    batch = BatchLimits(messages=0, bytes=16 << 20, age=60.0)
    """Each batch is an object: small ones cost more to store, and to read."""

    @property
    def options(self) -> type[S3Options]:
        """Raises ConfigError where the library is not installed."""
        if find_spec("boto3") is None:
            raise ConfigError([Fault("plugin", "needs boto3: pip install 'wafermon[s3]'")])
        from wafermon.backends.s3.options import S3Options

        return S3Options

    def examine(self, options: S3Options) -> Sequence[str]:
        """What would keep it from writing. Blocks; leaves one small object that a sidecar leaves as well."""
        from wafermon.backends.s3.examine import problems

        return problems(options)

    def build(self, options: S3Options, context: BackendContext) -> IBackend:
        from wafermon.backends.s3.store import S3Store
        from wafermon.backends.threaded.backend import ThreadedBackend

        return ThreadedBackend(lambda: S3Store(options, context), context)


s3 = S3Factory()
