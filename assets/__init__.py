"""The project: one folder per prediction service."""
