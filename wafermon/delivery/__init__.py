"""From the journal to the backends, and to the dead letters."""

from wafermon.delivery.dead_letter_follower import DeadLetterFollower
from wafermon.delivery.dead_letters import DeadLetters, Letter
from wafermon.delivery.deliveries import Deliveries
from wafermon.delivery.delivery import Delivery
from wafermon.delivery.patience import at_most
from wafermon.delivery.supervisor import FollowerState, Supervisor
from wafermon.delivery.workers import Workers

__all__ = [
    "DeadLetterFollower",
    "DeadLetters",
    "Deliveries",
    "Delivery",
    "FollowerState",
    "Letter",
    "Supervisor",
    "Workers",
    "at_most",
]
