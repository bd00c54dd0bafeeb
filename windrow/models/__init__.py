"""Training datasets, models, and releases: what was learned, from what, and whether it may be used."""
