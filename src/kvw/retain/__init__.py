"""What to keep, when nobody says: everyday questions, plain text, pictures, and the forget questions about others."""

SOURCES = ("everyday", "pictures", "text", "neighbours")
"""Where retain examples come from, in the order in which they are gathered."""
