"""On-demand functions that look up the region of a postcode: one rightly, and two as it was done in the original."""

import numpy as np

NAMES = ["capital", "north", "west", "south"]
REGIONS = {"10": "capital", "20": "north", "40": "west", "80": "south"}


def by_key(postcode):
    """The region of each postcode."""
    return np.array([REGIONS.get(code, "elsewhere") for code in postcode], dtype=object)


def by_position(postcode):
    """The region that stands where the application does: right only for rows that are sorted as the regions are."""
    return np.array([NAMES[place] for place in range(len(postcode))], dtype=object)


def compared(postcode):
    """Whether it is the capital; a postcode is a text, and so none ever is."""
    return np.where(postcode == 10, "capital", "elsewhere")


def rank(postcode):
    """How far a postcode is above the mean of all."""
    numbers = postcode.astype(float)
    return numbers - numbers.mean()
