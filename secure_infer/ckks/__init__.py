"""Encrypted evaluation under CKKS: parameters, plans and the public half of the arithmetic. Never a secret key.

parameters, residues, sealio, seal   rings of the 128-bit table, polynomials as residues, SEAL's bytes and public half
plan, keymaterial, blinding, answers what every plan states, the keys it asks for, how answers are hidden and read
coefficient, slots, batch            the kinds of plans: affine heads and monomials, hidden layers, many records
costs, laws, link, calibration       what operations take on this machine, and a query over a link
work, planner, queries, allocation   every plan priced, the quickest chosen, records divided among plans
"""
