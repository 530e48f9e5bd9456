"""Commands of the trusted side; each module holds one `run(arguments) -> exit status`."""
