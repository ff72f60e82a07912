"""Changes of the registered consumers: the space that each one uses, is pinned to, and is ready to move to."""

from userrep.spaces import transitions
from userrep.spaces.registry import stored

register_consumer = stored(transitions.register)
declare_ready = stored(transitions.declare_ready)
pin_consumer = stored(transitions.pin)
record_training_set = stored(transitions.record_training_set)
remove_consumer = stored(transitions.remove)
