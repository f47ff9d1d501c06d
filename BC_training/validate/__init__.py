"""Finds what is wrong with a dataset, by episode and frame, and writes a new one of what is good."""
