"""From a request in a table, or from a name alone, to the files that ``kvw erase`` takes."""
