"""Tables and pictures, made from nothing but records."""
