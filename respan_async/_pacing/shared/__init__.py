"""One window that several processes share, whatever store keeps its log."""
