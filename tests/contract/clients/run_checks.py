"""Run every `check_…` function of a script against a service, in a client's own environment.

    python run_checks.py SCRIPT ADDRESS

Checks take the address. The last line on stdout is a JSON object: "" for a check that passed, else its traceback.
"""

import asyncio
import importlib.util
import inspect
import json
import sys
import traceback


def main(script, address):
    """Run the checks in the order they are written in."""
    spec = importlib.util.spec_from_file_location("checks", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = {}
    for name, check in vars(module).items():
        if name.startswith("check_"):
            try:
                outcome = check(address)
                if inspect.isawaitable(outcome):
                    asyncio.run(outcome)
                results[name] = ""
            except Exception:
                results[name] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
