"""What may keep this machine from asking, looked at in order: the installation, the machine, then each target.

finding       what one look found, and what to do about it
installation  Python, packages, the encryption library, the embedder
machine       processor, memory, clock, unit costs
connection    name, port, TLS, certificate, model, one query
"""
