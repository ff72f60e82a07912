"""userrep: one frozen user embedding for many downstream models."""

__version__ = "0.1.0"
