"""Commands of the untrusted side; each module holds one `run(arguments) -> exit status`."""
