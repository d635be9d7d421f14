"""A real postgres server for the tests."""
