"""The shell of the online service."""
