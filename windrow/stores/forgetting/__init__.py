"""Forgetting an entity everywhere, and proving that nothing of it is left."""
