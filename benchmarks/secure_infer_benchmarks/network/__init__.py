"""Both schemes through emulated links."""
