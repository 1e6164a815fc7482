"""Messages to another sidecar, exactly once; see docs/backends/forward.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from wafermon.interfaces import BackendContext, IBackend, IBackendFactory
from wafermon.model.settings import BatchLimits

if TYPE_CHECKING:
    from wafermon.backends.forward.options import ForwardOptions


@implementer(IBackendFactory)
class ForwardFactory:
    """`plugin: forward`."""

    name = "forward"
    always = ("stats",)
    batch = BatchLimits(messages=0, bytes=256 << 10, age=1.0)
    """Each batch is a frame, which the other holds in memory until it is whole."""

    @property
    def options(self) -> type[ForwardOptions]:
        from wafermon.backends.forward.options import ForwardOptions

        return ForwardOptions

    def examine(self, options: ForwardOptions) -> Sequence[str]:
        """What would keep it from forwarding. Blocks, and takes no stream."""
        from wafermon.backends.forward.examine import problems

        return problems(options)

    def build(self, options: ForwardOptions, context: BackendContext) -> IBackend:
        from wafermon.backends.forward.backend import ForwardBackend

        return ForwardBackend(options, context)


forward = ForwardFactory()
