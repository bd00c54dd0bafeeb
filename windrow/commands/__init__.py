"""The commands of `windrow`: one verb per module, each with a click command called ``command``."""
