"""From the journal to the backends, and to the dead letters."""

from wafermon.delivery.dead_letters import DeadLetters, Letter
from wafermon.delivery.deliveries import Deliveries
from wafermon.delivery.delivery import Delivery
from wafermon.delivery.unroutable import Undertaker

__all__ = ["DeadLetters", "Deliveries", "Delivery", "Letter", "Undertaker"]
