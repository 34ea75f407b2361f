"""What serving costs: dated prices, a load, and what each platform asks for it."""
