"""Events on their way in: accepted, put online, committed to the lake, each exactly once."""
