"""Where the bundled samples come from: grammars for texts, and a drawing board for pictures.

Everything here was written for lbrun; no text, picture or tokenizer of anybody else is used.
"""
