"""Converters between domain objects and messages, nothing else: no arithmetic, no sockets."""
