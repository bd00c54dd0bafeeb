"""Electricity demand of an area, 24 hours ahead, every hour."""
