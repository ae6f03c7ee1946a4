"""Data sets: folders and zip archives with one folder of images per person, AT&T, and LFW."""
