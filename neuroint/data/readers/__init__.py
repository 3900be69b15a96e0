"""A file per format; each registers a reader that turns a path into sessions."""
