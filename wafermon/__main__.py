"""``python -m wafermon``."""

from wafermon.cli import main

main(prog_name="wafermon")
