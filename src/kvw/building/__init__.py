"""From a request in a table, or from nothing but a name, to the files that ``kvw erase`` takes."""
