"""Lambda and S3 on loopback, exact and fast enough to time what talks to them."""
