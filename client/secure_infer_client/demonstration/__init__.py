"""The demonstration that `secure-infer demo` gives, under either scheme, on the same texts and head.

seen      what passed a socket for one text, searched for what only the client has
scored    every text on its own: accuracy, agreement with plaintext, costs
ckks      one server
mpc       two parties and a dealer
beside    both results, side by side
"""
