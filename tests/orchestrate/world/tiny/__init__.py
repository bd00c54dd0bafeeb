"""Two small services: everything a project can have, in a hundred rows."""
