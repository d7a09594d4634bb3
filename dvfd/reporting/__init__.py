"""What a job's owner sends on: where its hours, joules and money went, and two runs held together.

A *story* is what is known of one run, from the store or from a stability run's own file. A document
is made of it, and pages, text and Markdown of that alone.
"""
