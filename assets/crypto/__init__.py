"""Whether the price of a coin rises in the next five minutes, said whenever a 30-second bar closes."""
