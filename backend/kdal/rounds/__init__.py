"""Rounds: when one begins, what it computes, and how the result reaches Label Studio."""
