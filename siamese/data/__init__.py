"""Folders and zips of labelled images."""
