"""What every other folder may use: errors, paths, child processes, progress, Ctrl-C. Knows no model."""
