"""HTTP: how a request is sent, and what its answer means."""
