"""What `predict` is measured against. Each module is copied out of here and runs as a Lambda handler."""
