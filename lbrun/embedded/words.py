"""The words that the simulated model speaks in: printable, free of characters that JSON escapes, and a few
of them not ASCII, so that a character can be cut in two on its way."""

from __future__ import annotations

WORDS: tuple[str, ...] = tuple(
    """
    the of and to in is was for that on as with by at from it an be are were has had not or but which
    one two first new also after other some time year people more most over into between during before
    under where when than then there these those their its his her they we you who what all any each many
    may can will would could should about against since while through because however both such same only
    still even well just now here again often early late next last long short high low large small good
    great public national local world city state country river mountain island sea north south east west
    water land road house school church station market company group team member family child man woman
    life work name number part place point side area region end start half day week month century night
    morning summer winter war peace law right power order system form history art music book film story
    game façade match player goal record score report study research science nature animal plant food
    health service business trade money price cost value plan project product model test result change
    growth energy light sound colour air fire stone wood metal paper machine engine train ship 東京
    tower building street garden field forest lake café border centre language word letter page line
    member council court office minister president king queen leader party vote election member support
    open close build make take give find hold keep bring call run move follow lead show tell write read
    """.split()  # noqa: SIM905 - a list of 300 quoted words would be harder to read
)
