"""What tests share: stores, servers that fail on demand, clients, and the values that answers are compared with."""
