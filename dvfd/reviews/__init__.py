"""What the weekly and the monthly list rest on: figures over days, made when a list is judged.

They come from what the store has, from runs that people accepted, and from a checkpoint that is
restored on the spot. Nothing here judges, and nothing here is on /metrics.
"""
