"""What people, probes and Prometheus see of a running sidecar. It reads; nothing here changes what is stored.

Nobody is asked who they are: it listens where only those who may know everything can reach it (docs/security.md).
"""

from wafermon.web.site import HttpServer
from wafermon.web.view import ListenerState, View

__all__ = ["HttpServer", "ListenerState", "View"]
