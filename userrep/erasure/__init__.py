"""Erasure of users: requests, and removal of their rows."""
