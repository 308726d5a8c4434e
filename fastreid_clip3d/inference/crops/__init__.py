"""Crops of people from videos and photos: frames, their boxes from a file or a detector, and the folders of crops."""
