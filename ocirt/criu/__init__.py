"""CRIU, spoken to over its RPC (https://criu.org/RPC): the messages, what is asked for, and the process that answers.

Loaded by `checkpoint` and `restore` alone.
"""
