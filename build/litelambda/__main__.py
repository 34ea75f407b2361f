"""`python -m litelambda`, for where the command is not on the path."""

import sys

from litelambda.cli.main import main

sys.exit(main())
