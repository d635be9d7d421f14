"""When a request may go: the account's limit, kept or learned, and who goes first."""
