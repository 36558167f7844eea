"""The `kdal` command, a file for each group of commands."""
