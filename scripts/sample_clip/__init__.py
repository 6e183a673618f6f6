"""How the bundled talking clip is made.

`actor` and `wardrobe` render who speaks, `room` what is behind, `speech` and `voice` say what is heard, `performance`
moves face and head to it.
"""
