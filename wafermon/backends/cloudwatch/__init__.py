"""Messages as log events of CloudWatch Logs, and metrics by its embedded metric format; over boto3. At least once."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from zope.interface import implementer

from wafermon.interfaces import BackendContext, ConfigError, Fault, IBackend, IBackendFactory
from wafermon.model.settings import BatchLimits

if TYPE_CHECKING:
    from wafermon.backends.cloudwatch.options import CloudWatchOptions


@implementer(IBackendFactory)
class CloudWatchFactory:
    """`plugin: cloudwatch`. Its library is an extra: a config that does not name it does not need it."""

    name = "cloudwatch"
    batch = BatchLimits(messages=10_000, bytes=1 << 20, age=5.0)
    """About one request."""

    @property
    def options(self) -> type[CloudWatchOptions]:
        """Raises ConfigError where the library is not installed."""
        if find_spec("boto3") is None:
            raise ConfigError([Fault("plugin", "needs boto3: pip install 'wafermon[cloudwatch]'")])
        from wafermon.backends.cloudwatch.options import CloudWatchOptions

        return CloudWatchOptions

    def examine(self, options: CloudWatchOptions) -> Sequence[str]:
        """What would keep it from writing. Blocks, and changes nothing."""
        from wafermon.backends.cloudwatch.examine import problems

        return problems(options)

    def build(self, options: CloudWatchOptions, context: BackendContext) -> IBackend:
        from wafermon.backends.cloudwatch.store import CloudWatchStore
        from wafermon.backends.threaded.backend import ThreadedBackend

        return ThreadedBackend(lambda: CloudWatchStore(options, context), context)


cloudwatch = CloudWatchFactory()
