"""The commands of ``wafermon``: a module each, whose `command` is what click runs."""
