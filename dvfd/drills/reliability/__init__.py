"""Five things that go wrong in production, provoked on purpose, each in a module of its own.

What three of them harm is a job that is ours: started here for it, or named by the person who may
end it. A fuse takes the harm back, whatever becomes of who did it.
"""
