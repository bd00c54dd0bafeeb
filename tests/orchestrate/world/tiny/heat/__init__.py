"""Heat of a room one day ahead: a regression trained by a notebook, scored by day."""
