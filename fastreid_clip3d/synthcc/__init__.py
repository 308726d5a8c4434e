"""SynthCC: rendered people who change their clothes, a benchmark made of free parts and no person's photograph.

A person (`person.py`) gets an outfit (`outfit.py`, from the tables in `wardrobe.py`), whose garments are cut from the
body's own surface (`garments.py`, `dressing.py`), is posed (`posing.py`) and photographed by one of eight cameras
(`camera.py`) before a procedural scene (`background.py`, `render.py`). `plan.py` says who is in which split,
`generate.py` writes a set, `sampling.py` makes people in memory, `grey_bodies.py` puts the SyntheticBodies into scenes.
"""
