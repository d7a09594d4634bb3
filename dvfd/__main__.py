"""`python -m dvfd` is `dvfd`."""

from dvfd.cli import main

main()
