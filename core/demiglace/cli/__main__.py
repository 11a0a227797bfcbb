"""`python -m demiglace.cli` is `demiglace`."""

import sys

from demiglace.cli import main

sys.exit(main())
