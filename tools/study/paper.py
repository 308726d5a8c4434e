"""The paper's numbers by table, in percent; our tables show them beside ours.

``TABLES[number][row][column]`` is (mAP, Rank-1); None where the paper prints a dash. The rows of Tables 10 and 11 have
the names of our variants.
"""

from __future__ import annotations

from collections.abc import Mapping

Score = tuple[float | None, float | None]

CELEB, LIGHT = "Celeb-reID", "Celeb-reID-light"

TABLES: Mapping[str, Mapping[str, Mapping[str, Score]]] = {
    "2": {
        "ReIDCaps": {CELEB: (15.8, 63.0), LIGHT: (19.0, 33.5)},
        "RCSAnet": {CELEB: (11.9, 55.6), LIGHT: (16.7, 29.5)},
        "CASE-Net": {CELEB: (18.2, 66.4), LIGHT: (20.4, 35.1)},
        "CAL": {CELEB: (13.7, 59.2), LIGHT: (18.5, 33.6)},
        "3DInvarReID": {CELEB: (15.2, 61.2), LIGHT: (21.8, 37.0)},
        "CLIP3DReID": {CELEB: (19.2, 63.1), LIGHT: (26.3, 39.4)},
    },
    "3": {
        "CAL": {"Celeb-reID (blur)": (7.7, 48.2), "Celeb-reID-light (blur)": (13.4, 22.5)},
        "3DInvarReID": {"Celeb-reID (blur)": (9.6, 51.2), "Celeb-reID-light (blur)": (17.2, 29.6)},
        "CLIP3DReID": {"Celeb-reID (blur)": (11.6, 52.8), "Celeb-reID-light (blur)": (21.3, 32.1)},
    },
    "4": {
        "3DSL": {"LTCC": (14.8, 31.2), "PRCC": (None, 51.3)},
        "FSAM": {"LTCC": (16.2, 38.5), "PRCC": (None, 54.5)},
        "CAL": {"LTCC": (18.0, 40.1), "PRCC": (55.8, 55.2)},
        "AIM": {"LTCC": (19.1, 40.6), "PRCC": (58.3, 57.9)},
        "3DInvarReID": {"LTCC": (18.9, 40.9), "PRCC": (57.2, 56.5)},
        "CLIP3DReID": {"LTCC": (21.7, 42.1), "PRCC": (59.3, 60.6)},
    },
    "5": {
        "CAL": {"CCVID, general": (81.3, 82.6), "CCVID, cloth-changing": (79.6, 81.7), "CCDA": (19.3, 10.0)},
        "3DInvarReID": {"CCVID, general": (82.6, 83.9), "CCVID, cloth-changing": (81.3, 81.7), "CCDA": (21.7, 11.1)},
        "CLIP3DReID": {"CCVID, general": (83.9, 84.5), "CCVID, cloth-changing": (83.2, 82.4), "CCDA": (25.7, 15.5)},
    },
    "6": {
        "ReIDCaps": {"DeepChange": (11.3, 39.5)},
        "CAL": {"DeepChange": (19.0, 54.0)},
        "3DInvarReID": {"DeepChange": (19.6, 55.1)},
        "CLIP3DReID": {"DeepChange": (20.8, 56.7)},
    },
    "7": {
        "3DSL": {"Market-1501": (87.3, 95.0), "MSMT17": (None, None)},
        "FSAM": {"Market-1501": (85.6, 94.6), "MSMT17": (None, None)},
        "CAL": {"Market-1501": (87.5, 94.7), "MSMT17": (57.3, 79.3)},
        "3DInvarReID": {"Market-1501": (87.9, 95.1), "MSMT17": (59.1, 80.8)},
        "CLIP3DReID": {"Market-1501": (88.4, 95.6), "MSMT17": (61.2, 81.5)},
    },
    "8": {
        "CAL": {"LTCC to PRCC": (35.9, 38.0), "PRCC to LTCC": (3.3, 8.4)},
        "3DInvarReID": {"LTCC to PRCC": (36.1, 40.1), "PRCC to LTCC": (3.3, 9.1)},
        "CLIP3DReID": {"LTCC to PRCC": (37.5, 41.7), "PRCC to LTCC": (4.5, 9.9)},
    },
    "10": {
        "full": {CELEB: (19.2, 63.1), LIGHT: (26.3, 39.4)},
        "without_synthetic": {CELEB: (17.9, 61.8), LIGHT: (25.3, 38.7)},
        "without_ot": {CELEB: (17.0, 61.2), LIGHT: (24.8, 38.1)},
        "without_global": {CELEB: (16.5, 60.1), LIGHT: (23.9, 37.6)},
        "without_3d": {CELEB: (18.5, 62.5), LIGHT: (26.0, 38.9)},
        "without_all": {CELEB: (14.2, 57.5), LIGHT: (17.4, 29.1)},
    },
    "11": {
        "ViT-B-32_openai": {CELEB: (15.2, 58.7)},
        "ViT-B-16_openai": {CELEB: (17.7, 61.2)},
        "ViT-L-14_openai": {CELEB: (19.2, 63.1)},
    },
}

CHAMFER_ON_HBW = {"SHAPY": 0.632, "3DInvarReID": 0.610, "CLIP3DReID": 0.642}
"""Table 9: CD-L2 on HBW; the paper gives no unit."""
