"""Black-box teachers over the wire, and their ledger in the project's store."""
