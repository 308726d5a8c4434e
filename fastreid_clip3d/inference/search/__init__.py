"""Finding people in a folder of pictures: by a picture of them, or by phrases about their body."""
