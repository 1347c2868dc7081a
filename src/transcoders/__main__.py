"""``python -m transcoders``."""

from transcoders.cli import main

main()
