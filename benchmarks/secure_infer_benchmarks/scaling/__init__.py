"""How cost grows with heads, batches and clients."""
