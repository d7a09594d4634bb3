"""`dvfd`, and `python -m dvfd`."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it still loads ends it without a word."""
    loud = signal.getsignal(signal.SIGINT)
    if loud is signal.default_int_handler:  # ignored, say in the background, stays ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from dvfd.cli import main as command  # noqa: PLC0415  # this is what loads

    signal.signal(signal.SIGINT, loud)
    command()


if __name__ == "__main__":
    main()
