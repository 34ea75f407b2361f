"""`python -m litelambda`, for where the command is not on the path."""

import sys

from litelambda.cli import main

sys.exit(main())
