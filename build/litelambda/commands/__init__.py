"""The commands with typed arguments: build, import, package, serve, score, deploy. Knows no command line."""
