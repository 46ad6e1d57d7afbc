"""What to keep, when nobody says: everyday questions, facts, text, pictures, and the forget questions about others."""

NEIGHBOURS = ("neighbours", "picture-neighbours")
"""The sources that stand next to what is to be forgotten: the forget questions with other names, and other pictures."""
SOURCES = ("everyday", "pictures", "facts", "text", *NEIGHBOURS)
"""Where retain examples come from, in the order in which they are gathered."""
KEEP = 0.98
"""The share of what must stay that an edit leaves, unless told otherwise."""
