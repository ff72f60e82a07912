"""Explanations: what a space's vectors tell about users, what drives a linear model of them, and segments of users."""
