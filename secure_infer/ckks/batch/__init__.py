"""The batch plan: many records in one query, one ciphertext a feature, matrix products on residues.

plan        the plan as data: layouts, scales, bytes
gemm        integer matrices times residues, exactly, by float64 BLAS
uniform     the uniform halves of ciphertexts from seeds, by AES
packing     the client's half: records to polynomials, answers to logits
query       the server's intake of one feature's ciphertext
evaluator   what evaluations share: features stream in, sums stay
affine      affine heads: one matrix product
quadratic   hidden layers: products of residues between matrix products
keys        switching keys for conjugates, made by the client, applied to outputs alone
blinding    encryptions of zero, flooded on every coefficient
answer      blind, switch, drop primes, add the bias, round
planner     chooses parameters (affine_planner, quadratic_planner, deep_form, deep_planner, chain)
work        counts what a batch asks of both sides
"""
