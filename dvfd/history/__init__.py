"""Long history from an engine that speaks PromQL. What cannot be believed is an error, no figure.

`engine` asks, `answer` reads what came and refuses what cannot be, `course` makes samples of it,
`past` is one node's past in the shape that the lists read, `chosen` says whom the lists ask. All of
it answers with an engine's own numbers or raises HistoryError: never with half of an answer.
"""
