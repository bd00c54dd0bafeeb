"""Which customers of a telephone company leave within 30 days."""
