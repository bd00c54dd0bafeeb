"""On-demand functions of the small worlds: NumPy and the standard library only."""


def share(amount, limit):
    """Of the limit."""
    return amount / limit
