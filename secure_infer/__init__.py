"""secure-infer: encrypted inference with a model that lives on somebody else's server.

This package is the shared ground of the two sides: the model (`heads`), the cryptographic plans (`ckks`), the
messages (`wire`) and the errors. It holds public knowledge only: no secret key, no plaintext input, no sockets.
"""

__version__ = "0.1.0"
