"""How two teams and the league compare."""


def difference(ours, theirs):
    """How much more the one has; missing where one of the two is."""
    return ours - theirs
