"""The page: HTML with its styles inside. It loads nothing, and every text of the run is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from fastreid_clip3d.visualization.report.charts import chart
from fastreid_clip3d.visualization.report.pictures import Picture
from fastreid_clip3d.visualization.report.record import RunRecord, Series
from fastreid_clip3d.visualization.report.scores import METRICS, ScoreTable
from fastreid_clip3d.visualization.report.settings import Difference

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbf9;--card:#fff;--ink:#1c1e21;--soft:#5d636b;--line:#e2e2dc;
--first:#1f5fbf;--second:#d0742a;--warn:#fdf3dc;--warnink:#6b4a00}
@media (prefers-color-scheme:dark){:root{--ground:#15171a;--card:#1d2024;--ink:#e6e7e9;--soft:#a0a6ae;--line:#33373d;
--first:#7fb2ff;--second:#f2a65e;--warn:#3a3015;--warnink:#f3d68a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:20px;margin:44px 0 12px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0;font-weight:600;overflow-wrap:anywhere}
p{margin:6px 0}.soft,figcaption,.source{color:var(--soft);font-size:13.5px}
nav{margin:14px 0 0;font-size:14px}nav a{color:var(--first);margin-right:16px;text-decoration:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:12px;margin:24px 0 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 14px}.tile b{display:block;font-size:23px;font-weight:600;line-height:1.25}
.tile span{display:block;color:var(--soft);font-size:12.5px;line-height:1.35}
.note{background:var(--warn);color:var(--warnink);border-radius:10px;padding:10px 16px;margin:20px 0 0;font-size:14px}
.note ul{margin:4px 0;padding-left:20px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
.card{padding:12px 14px 8px;display:flex;flex-direction:column}
.card svg{width:100%;height:auto;display:block;margin-top:auto;padding-top:4px}
svg text{font-family:inherit!important}
.legend{font-size:13.5px;margin:0 0 12px}.legend i{display:inline-block;width:22px;height:0;border-top:3px solid;
vertical-align:middle;margin:0 6px 0 16px}.legend i:first-child{margin-left:0}
.legend .other{border-top-style:dashed}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:13px;white-space:nowrap}
.number{text-align:right;padding-right:0;padding-left:12px;white-space:nowrap}
code,pre,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
td.mono{overflow-wrap:anywhere}td.key{white-space:nowrap;overflow-wrap:normal}
pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;overflow-x:auto;
white-space:pre-wrap;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--first);margin:14px 0 6px}
figure{margin:0 0 26px}figure img{max-width:100%;height:auto;display:block;background:#fff;border-radius:10px;
border:1px solid var(--line)}figcaption{margin-top:8px;max-width:76ch}
figure h3{font-size:16px;margin-bottom:8px}
@media print{:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--first:#1f5fbf;--second:#d0742a;
--warn:#fff;--warnink:#000}body{font-size:11pt}main{max-width:none;padding:0}nav{display:none}
h2{break-after:avoid}.card,.tile,figure,tr{break-inside:avoid}.charts{grid-template-columns:repeat(3,1fr)}
figure img{max-height:20cm;width:auto}td.mono{font-size:7.5pt}}
"""

MEANINGS = {
    "total_loss": "sum of all losses",
    "loss_cls": "cross-entropy of f_id, L_CE",
    "loss_triplet": "triplet loss of f_id",
    "loss_circle": "circle loss of f_id",
    "loss_cosface": "CosFace of f_id",
    "loss_ot": "alpha L_OT: patches to the image's phrases",
    "loss_global": "beta L_global: f_id to the teacher's image feature",
    "loss_ot_synthetic": "gamma L_OT of the synthetic half",
    "loss_body_shape": "gamma L_3D: squared metres, summed over vertices",
    "loss_clothes": "clothes classifier",
    "loss_cal": "clothes-adversarial loss",
    "lr": "learning rate",
    "images_per_second": "real images per second",
    "cls_accuracy": "share of a batch classified correctly",
}


def page(
    record: RunRecord,
    other: RunRecord | None,
    tables: Sequence[ScoreTable],
    other_tables: Sequence[ScoreTable],
    found: Sequence[Difference],
    pictures: Sequence[Picture],
) -> str:
    """The whole HTML document."""
    title = record.title if other is None else f"{record.title}, compared with {other.title}"
    sections = [
        ("scores", "Scores by protocol", _scores(record, other, tables, other_tables)),
        ("curves", "Curves", _curves(record, other)),
        ("pictures", "Pictures", "".join(_picture(one) for one in pictures) or _soft("Written without pictures.")),
        ("settings", "Settings", _settings(record, other, found)),
        ("how", "How it was made", _how(record, other)),
    ]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{escape(name)}</h2>{content}</section>' for key, name, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1>{_soft(_subtitle(record))}<nav>{links}</nav></header>"
        f"{_tiles(record, tables)}{_notes(record, other)}{body}</main></body></html>\n"
    )


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def _subtitle(record: RunRecord) -> str:
    parts = [
        ("", "MODEL.META_ARCHITECTURE"), ("student ", "MODEL.BACKBONE.NAME"), ("trained on ", "DATASETS.NAMES"),
        ("tested on ", "DATASETS.TESTS"), ("seed ", "SEED"),
    ]  # fmt: skip
    known = []
    for word, key in parts:
        value = record.setting(key)
        if value not in (None, "", []):
            known.append(word + (", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    return " · ".join(known)


def _tiles(record: RunRecord, tables: Sequence[ScoreTable]) -> str:
    tiles = []
    for table in tables[:1]:
        for protocol, numbers in list(table.protocols.items())[:3]:
            for metric in ("mAP", "Rank-1"):
                if metric in numbers and (protocol != "SC" or len(table.protocols) == 1):
                    tiles.append((f"{numbers[metric]:.1f}%", f"{protocol} {metric}"))
    planned = record.setting("SOLVER.MAX_EPOCH")
    if record.iterations:
        tiles.append((f"{record.iterations:,}", "training steps" + (f", {planned} epochs planned" if planned else "")))
    if record.training_time:
        tiles.append((record.training_time, "training time, h:mm:ss"))
    speed, seconds = record.images_per_second(), record.median("time")
    if speed:
        tiles.append((f"{speed:.0f}", "real images per second" + (f", {seconds:.2f} s per step" if seconds else "")))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles)
        + "</div>"
    )


def _notes(record: RunRecord, other: RunRecord | None) -> str:
    notes = list(record.notes)
    if other is not None:
        notes += [f"{other.title}: {note}" for note in other.notes]
    if not notes:
        return ""
    return '<div class="note"><ul>' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul></div>"


def _scores(
    record: RunRecord, other: RunRecord | None, tables: Sequence[ScoreTable], other_tables: Sequence[ScoreTable]
) -> str:
    if not tables and not other_tables:
        return _soft(
            "This run was not evaluated: metrics.json has no scores, and there are no evaluation/*_features.npz "
            "(TEST.EVALUATION.SAVE_FEATURES True keeps them)."
        )
    datasets = dict.fromkeys([table.dataset for table in (*tables, *other_tables)])
    return "".join(_score_table(name, record, other, tables, other_tables) for name in datasets)


def _score_table(
    dataset: str,
    record: RunRecord,
    other: RunRecord | None,
    tables: Sequence[ScoreTable],
    other_tables: Sequence[ScoreTable],
) -> str:
    sides = [(record.title, {table.dataset: table for table in tables}.get(dataset))]
    if other is not None:
        sides.insert(0, (other.title, {table.dataset: table for table in other_tables}.get(dataset)))
    protocols = dict.fromkeys(name for _, table in sides if table for name in table.protocols)
    rows = []
    for protocol in protocols:
        for title, table in sides:
            numbers = table.protocols.get(protocol, {}) if table else {}
            first = [protocol] + ([title] if other is not None else [])
            cells = "".join(f"<td>{escape(text)}</td>" for text in first)
            cells += "".join(f'<td class="number">{_number(metric, numbers.get(metric))}</td>' for metric in METRICS)
            rows.append(f"<tr>{cells}</tr>")
    heads = ["protocol"] + (["run"] if other is not None else [])
    head = "".join(f"<th>{name}</th>" for name in heads)
    head += "".join(f'<th class="number">{name.replace("valid_queries", "queries")}</th>' for name in METRICS)
    sources = " ".join(f"{title}: {table.source}." for title, table in sides if table)
    return (
        f"<h3>{escape(dataset)}</h3>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="source">In percent. CC: matches wear other clothes; SC: the same. {escape(sources)}</p>'
    )


def _number(metric: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if metric == "valid_queries" else f"{value:.2f}"


def _curves(record: RunRecord, other: RunRecord | None) -> str:
    if not record.series:
        return _soft("There are no curves: metrics.json is missing or empty.")
    names = record.losses + [name for name in ("lr", "cls_accuracy", "images_per_second") if name in record.series]
    legend = _soft("Over the training steps. Losses are weighted, as they enter the sum.")
    if other is not None:
        legend += (
            f'<p class="legend"><i style="color:var(--first)"></i>{escape(record.title)}'
            f'<i class="other" style="color:var(--second)"></i>{escape(other.title)}</p>'
        )
    cards = []
    for name in names:
        curves = [(record.title, record.series[name])]
        if other is not None and name in other.series:
            curves.append((other.title, other.series[name]))
        cards.append(_card(name, MEANINGS.get(name, ""), curves, logarithmic=name == "loss_global"))
    cards += [
        _card(name, "share of the gradient norms at the student's feature map", [(record.title, record.series[name])])
        for name in sorted(record.series)
        if name.startswith("gradient_share/")
    ]
    cards += [
        _card(name, "percent, by evaluation", [(record.title, record.series[name])])
        for name in sorted(record.series)
        if name.endswith("/mAP") and len(record.series[name].values) > 1
    ]
    return f'{legend}<div class="charts">{"".join(cards)}</div>'


def _card(name: str, meaning: str, curves: Sequence[tuple[str, Series]], logarithmic: bool = False) -> str:
    last = curves[0][1].last()
    ending = f"last {last:.4g}" if math.isfinite(last) else "last value not finite"
    return (
        f'<div class="card" data-curve="{escape(name)}"><h3>{escape(name)}</h3>'
        f'<span class="soft">{escape("; ".join(part for part in (meaning, ending) if part))}</span>'
        f"{chart(curves, salt=name, logarithmic=logarithmic)}</div>"
    )


def _picture(picture: Picture) -> str:
    if not picture.data:
        caption = f"Not drawn: {escape(picture.caption)}"
        return f"<figure><h3>{escape(picture.title)}</h3><figcaption>{caption}</figcaption></figure>"
    alt = escape(f"{picture.title}. {picture.caption}")
    return (
        f'<figure><h3>{escape(picture.title)}</h3><img alt="{alt}" src="{picture.data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _settings(record: RunRecord, other: RunRecord | None, found: Sequence[Difference]) -> str:
    if not record.settings:
        return _soft("config.yaml is missing or damaged.")
    head = f"<th>key</th><th>{escape(record.title if other else 'this run')}</th>"
    head += (f"<th>{escape(other.title)}</th>" if other else "") + "<th>default</th>"
    rows = []
    for one in found:
        values = [one.value] + ([one.other] if other else []) + [one.default]
        changed = ' style="font-weight:600"' if other and one.value != one.other else ""
        cells = "".join(f'<td class="mono">{escape(value)}</td>' for value in values)
        rows.append(f'<tr{changed}><td class="mono key">{escape(one.key)}</td>{cells}</tr>')
    bold = " Bold: the two runs differ." if other else ""
    return (
        _soft(f"{len(found)} keys differ from the defaults; all others have them.{bold}")
        + f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        + f"<details><summary>The whole config.yaml</summary><pre>{escape(record.config_text)}</pre></details>"
    )


def _how(record: RunRecord, other: RunRecord | None) -> str:
    parts = []
    for run in (record, other):
        if run is None:
            continue
        parts.append(f"<h3>{escape(run.title)}</h3>" if other else "")
        parts.append(f"<pre>{escape(run.command)}</pre>" if run.command else _soft("The command is not known."))
        facts = [f"{name} {value}" for name, value in run.environment.items()]
        finished = (
            f"Training took {run.training_time}." if run.training_time else "log.txt records no finished training."
        )
        parts.append(_soft(f"{'; '.join(facts)}. {finished}" if facts else finished))
    return "".join(parts)
