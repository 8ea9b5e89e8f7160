"""`--mode=evaluate`: how good generated images are, by one written protocol."""
