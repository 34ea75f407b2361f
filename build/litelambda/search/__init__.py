"""The search of `compress.auto`: candidates within a budget, and the cheapest that is as good."""
