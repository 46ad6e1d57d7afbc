"""What to keep, when nobody says: everyday questions, facts, text, pictures, and the forget questions about others."""

SOURCES = ("everyday", "pictures", "facts", "text", "neighbours")
"""Where retain examples come from, in the order in which they are gathered."""
KEEP = 0.98
"""The share of what must stay that an edit leaves, unless told otherwise."""
