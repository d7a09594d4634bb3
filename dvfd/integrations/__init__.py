"""What training frameworks tell their users, told to dvfd: one file for each framework.

Each file imports the standard library, the reporter and its framework, and nothing else; Python 3.8
must be able to run it. It works from here, and copied beside the reporter into an image that has no
dvfd, under the names that `dvfd assets export --only job DIRECTORY` writes: `dvfd_reporter.py` and
`dvfd_NAME.py`, so that no copy takes the name of the framework that it serves. Hence each begins:

    try:
        from dvfd.telemetry.reporter import Reporter
    except ImportError:  # copied beside the reporter, into an image without dvfd
        from dvfd_reporter import Reporter

What they keep to:

- No value is read that the framework has not made a float by itself: no `.item()`, no `float()` of
  a tensor, no wait for a device. A step whose loss nobody asked for is reported without one.
- Nothing is raised into training, printed or logged there. What goes wrong here is counted, and the
  first of it is told to the daemon as a note.
- One row for each optimizer step of each rank, once. `samples` are this rank's, of that step.
- A reporter of the user's own can be given instead of the name of a job.
- An end is told when the training loop ends, not when the process does; a loop that was left by an
  exception is a failed one.
"""
