"""What a body may hold besides JSON: base64, compression, raw tensors, images. Each loads on first use."""
