"""The request path: from the bytes of a request to a logged answer, and the process that carries it."""
