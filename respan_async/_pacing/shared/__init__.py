"""A window that several processes share, with its log in any store."""
