"""Starts the runtime client with the function's handler, as the managed runtime's file of this name does."""

import os
import sys

sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])

from awslambdaric.__main__ import main  # the function's folder comes first on the path

if __name__ == "__main__":
    main([sys.argv[0], os.environ["_HANDLER"]])
