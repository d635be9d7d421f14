"""Calls of the API: attempts, retries, cancellation, suspects and sweeps."""
