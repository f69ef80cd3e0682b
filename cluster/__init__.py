"""Everything that must know that more than one node exists. Entered through objectstore, directory and operations."""
