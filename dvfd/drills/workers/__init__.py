"""What runs in the job's interpreter, through `dvfd.drills.bare`: torch and the standard library.

A worker prints nothing but what a person may read as progress, and leaves its answer as JSON in the
file that it is told.
"""
