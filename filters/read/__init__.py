"""Reading: units of input, one reader per format, extraction of text, labels."""
