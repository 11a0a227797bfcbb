"""`python -m demiglace` is the command line."""

from demiglace.cli import main

main()
