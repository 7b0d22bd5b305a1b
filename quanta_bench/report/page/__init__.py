"""All results of a folder as one HTML page that needs no network and no other file."""
