"""Who is calling, and what they may call.

watched        files read again when they change; a bad one keeps what was read before
transport      TLS 1.3 and nothing older; which key exchange was negotiated
credentials    a server's certificate, renewed without a restart
caller         one authenticated caller
keysets, tokens    public keys of token issuers; the tokens they sign
authenticator  certificate, token or loopback -> caller
patterns, policy   rules: deny by default, per method and model
second_factor  one-time codes for administrative calls
permissions    policy and second factor together
authority      certificates: a CA, and what it signs
renewal        the certificates of a directory, signed again before they expire
probe          which key exchanges a server takes
"""
