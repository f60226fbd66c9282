"""One file per family of RPCs: each checks a request, has one operation done, and answers."""
