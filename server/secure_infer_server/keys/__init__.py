"""Clients' public key material: uploads that resume, stores that last, and the parsed keys that evaluation uses.

`vault` is what a server works with; below it a `backend` holds bytes: in `memory`, on `disk` or in `redis_backend`.
`service` is the KeyService above, `servicer` puts it on an event loop, `settings` is what an operator decides. Every key
belongs to the identity that uploaded it; see `names.KeyName`.
"""
