"""How the tables came to be: format N is what ``format_N.py`` makes of format N - 1. Released ones never change."""
