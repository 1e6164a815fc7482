"""Messages as rows of PostgreSQL, with TimescaleDB's hypertables where the server has them; over txpostgres."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from zope.interface import implementer

from wafermon.interfaces import BackendContext, ConfigError, Fault, IBackendFactory
from wafermon.model.settings import BatchLimits

if TYPE_CHECKING:
    from wafermon.backends.timescaledb.backend import TimescaleBackend
    from wafermon.backends.timescaledb.options import TimescaleOptions


@implementer(IBackendFactory)
class TimescaleFactory:
    """`plugin: timescaledb`. Its libraries are an extra: a config that does not name it does not need them."""

    name = "timescaledb"

    batch = BatchLimits(messages=10_000, bytes=8 << 20)
    """A transaction costs as much as some hundred rows, and a thread that waits for Python's lock a few times for each."""
    without = ("stats",)
    """Types of message for which there is no table."""

    @property
    def options(self) -> type[TimescaleOptions]:
        """Raises ConfigError where the libraries are not installed."""
        missing = [name for name in ("psycopg2", "txpostgres") if find_spec(name) is None]
        if missing:
            problem = f"needs {' and '.join(missing)}: pip install 'wafermon[timescaledb]'"
            raise ConfigError([Fault("plugin", problem)])
        from wafermon.backends.timescaledb.options import TimescaleOptions

        return TimescaleOptions

    def examine(self, options: TimescaleOptions) -> Sequence[str]:
        """What would keep it from writing. Blocks, and changes nothing."""
        from wafermon.backends.timescaledb.examine import problems

        return problems(options)

    def build(self, options: TimescaleOptions, context: BackendContext) -> TimescaleBackend:
        from wafermon.backends.timescaledb.backend import TimescaleBackend

        return TimescaleBackend(options, context)


timescaledb = TimescaleFactory()
