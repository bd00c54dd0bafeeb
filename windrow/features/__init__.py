"""Declarations of features, and the joins that read them in time."""
