"""Spill files of programs that are gone."""
