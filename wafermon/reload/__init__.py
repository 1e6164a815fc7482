"""Another config for a running sidecar: read, checked whole, and put in force whole or not at all."""

from wafermon.reload.plan import differences, needs_restart
from wafermon.reload.reloader import Reloader
from wafermon.reload.watch import Watch

__all__ = ["Reloader", "Watch", "differences", "needs_restart"]
