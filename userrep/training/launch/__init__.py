"""Launchers that start ranks, and the communication between ranks and with the driver."""
