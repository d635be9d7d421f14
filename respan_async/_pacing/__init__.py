"""The pace: decides when a request may go, within the account's limit, and which call goes first."""
