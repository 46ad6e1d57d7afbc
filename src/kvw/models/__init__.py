"""Loading models and finding their value matrices."""
