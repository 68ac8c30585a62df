"""A corpus of APIs made from bare entries of a list: introductions, functions, OpenAPI documents, documentation."""
