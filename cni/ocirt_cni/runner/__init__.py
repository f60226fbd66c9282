"""Networks of several plugins, as libcni runs them."""
