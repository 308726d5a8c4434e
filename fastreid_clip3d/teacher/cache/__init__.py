"""The teacher's answers on disk: g, the 32 scores and the 16 choices of every training image and of its mirror image.

Shape letters: N images, 2 sides (as it is, mirrored), d embedding width, 32 phrases, 16 pairs.
"""

from fastreid_clip3d.teacher.cache.build import build_cache
from fastreid_clip3d.teacher.cache.files import CacheError
from fastreid_clip3d.teacher.cache.reader import TeacherCache

__all__ = ["CacheError", "TeacherCache", "build_cache"]
