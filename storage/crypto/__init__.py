"""Keys and seals. The datanodes import nothing from here but sizes."""
