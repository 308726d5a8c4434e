"""Students that fast-reid lacks, and one way to build every student with its weights checked."""

from fastreid_clip3d.modeling.backbones.build import StudentMaps, build_student, student_maps, whole_students
from fastreid_clip3d.modeling.backbones.mobile import (
    build_mobilenetv2_last_stride_backbone,
    build_mobilenetv3_last_stride_backbone,
    build_shufflenetv2_last_stride_backbone,
)
from fastreid_clip3d.modeling.backbones.timm_backbone import TimmBackbone, build_timm_backbone

__all__ = [
    "StudentMaps",
    "TimmBackbone",
    "build_mobilenetv2_last_stride_backbone",
    "build_mobilenetv3_last_stride_backbone",
    "build_shufflenetv2_last_stride_backbone",
    "build_student",
    "build_timm_backbone",
    "student_maps",
    "whole_students",
]
