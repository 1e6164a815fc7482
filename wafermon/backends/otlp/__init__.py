"""Messages as logs, metrics and spans, over OTLP/HTTP, to whatever takes that. At least once."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from wafermon.backends.otlp.options import OtlpOptions
from wafermon.interfaces import BackendContext, IBackend, IBackendFactory
from wafermon.model.settings import BatchLimits


@implementer(IBackendFactory)
class OtlpFactory:
    """`plugin: otlp`."""

    name = "otlp"
    options = OtlpOptions
    batch = BatchLimits(messages=5000, bytes=4 << 20, age=1.0)

    def examine(self, options: OtlpOptions) -> Sequence[str]:
        """What would keep it from sending. Blocks; what it sends is empty."""
        from wafermon.backends.otlp.examine import problems

        return problems(options)

    def build(self, options: OtlpOptions, context: BackendContext) -> IBackend:
        from wafermon.backends.otlp.store import OtlpStore
        from wafermon.backends.threaded.backend import ThreadedBackend

        return ThreadedBackend(lambda: OtlpStore(options, context), context)


otlp = OtlpFactory()
