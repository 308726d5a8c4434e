"""The frozen vision-language teacher: loading, preprocessing, phrase labels and the cache of its answers (Section 3.2).

Shape letters of this room: B images, 3 x H x W the teacher's own input, d its embedding width, 32 phrases, 16 pairs.
"""

from fastreid_clip3d.teacher.cache import TeacherCache, build_cache
from fastreid_clip3d.teacher.clip import Teacher, load_teacher
from fastreid_clip3d.teacher.labels import choose_phrases, pack_choices, phrase_scores, unpack_choices
from fastreid_clip3d.teacher.preprocess import ImageTransform
from fastreid_clip3d.teacher.sources import EMBEDDED_TEACHER

__all__ = [
    "EMBEDDED_TEACHER",
    "ImageTransform",
    "Teacher",
    "TeacherCache",
    "build_cache",
    "choose_phrases",
    "load_teacher",
    "pack_choices",
    "phrase_scores",
    "unpack_choices",
]
