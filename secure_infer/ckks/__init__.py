"""Encrypted evaluation under CKKS: parameters, plans and the public half of the arithmetic. Never a secret key.

parameters   ring degree and primes, held to the 128-bit table when built
residues     polynomials as residues: packing to bytes, checks, exact integer helpers
seal         the only module here that touches the SEAL library: public operations
plan         the coefficient plan as data: geometry, scales, bounds, bytes, identity
planner      chooses a plan for a linear head by the range, precision and smudging rule
coefficient  the plan's two halves: what the client packs and reads, what the server executes
blinding     encryptions of zero with a Gaussian flood, which hide the model from the key holder
"""
