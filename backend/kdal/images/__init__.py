"""Images of tasks: where they are read from, kept and decoded."""
