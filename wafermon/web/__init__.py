"""What people, probes and Prometheus see of a running sidecar. It reads; nothing here changes what is stored.

Each port serves parts of it (health, metrics, api, page) and may ask for a token or a certificate (docs/security.md).
"""

from wafermon.web.site import HttpServer
from wafermon.web.view import ListenerState, View

__all__ = ["HttpServer", "ListenerState", "View"]
