"""Who comes back: a classifier, scored for the newest row of each customer."""
