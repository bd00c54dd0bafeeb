"""What the application says by itself, or together with the applicant's record."""

import numpy as np

REGIONS = {
    "10": "capital",
    "14": "east",
    "20": "north",
    "28": "north",
    "40": "west",
    "50": "rhine",
    "60": "main",
    "70": "south",
    "80": "south",
    "90": "south",
}


def region(postcode):
    """The region of a postcode, looked up by its first two digits."""
    return np.array([REGIONS.get(code[:2], "elsewhere") for code in postcode], dtype=object)


def instalment_share(amount, term_months, income):
    """What a month's instalment takes of a month's income; missing where no income is known."""
    return amount / term_months / np.where(income > 0, income / 12, np.nan)
