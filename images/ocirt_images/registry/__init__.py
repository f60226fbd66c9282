"""The distribution protocol: where images come from and go to.

`client.Registry` is what callers use; `hosts.Hosts` and `credentials.Credentials` tell it where to ask and as whom. Below it,
`session` adds retries, redirects and authentication (`auth`) to what `transport` does with urllib3.
"""
