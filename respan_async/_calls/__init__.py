"""Calls: from the first attempt to the result, and what is left behind."""
