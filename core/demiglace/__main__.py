"""`python -m demiglace` is the command line."""

import sys

from demiglace.cli import main

sys.exit(main())
