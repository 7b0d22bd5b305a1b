"""The scores of finished runs in the formats of other tools, a module each."""
