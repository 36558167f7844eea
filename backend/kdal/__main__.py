"""``python -m kdal`` is the `kdal` command."""

from kdal.cli.main import main

main()
