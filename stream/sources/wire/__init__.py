"""Wire formats: pure functions from message parts to what they say. No sockets, no state."""
