"""Reading files and hub data sets: archives, tolerant parsing, columns and schemas, downloads."""
