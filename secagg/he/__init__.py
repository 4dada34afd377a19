"""Homomorphic sums: one upload a client, no talk between clients, a key that somebody holds.

``HEParams.plan`` chooses and proves the parameters. ``HEClientSession`` encrypts, ``HEServerSession`` adds ciphertexts
without any library that parses them, ``DecryptorSession`` adds them again and releases the sum alone. Encrypting and
decrypting need the extra ``he``; the server's side does not.
"""
