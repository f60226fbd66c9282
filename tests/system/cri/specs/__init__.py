"""What each spec of critest checks, by gRPC; a test's id is the spec's title."""
