"""Everything about S3's language, and the command line on top."""
