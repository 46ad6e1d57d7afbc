"""A server with edits that each request chooses for itself; needs the extra ``serve``."""
