"""Channels of a network: which belong together, and how they are taken out."""
