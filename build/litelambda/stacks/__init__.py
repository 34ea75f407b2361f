"""Deployed stacks: what they are, what they log, and going back. CloudFormation and SAM do the work."""
