"""Child processes, and the servers that a demo or a test starts."""
