"""Renews the sample documents that the demo ingests: the manual as PDF, the warranty leaflet as DOCX.

    python -m venv target/tools/knowledge
    target/tools/knowledge/bin/pip install -r tools/knowledge/requirements.txt
    target/tools/knowledge/bin/python tools/knowledge/build.py

The texts are the two Markdown files beside this one; the CSV and TXT samples are written by hand in examples/knowledge.
Both results are the same bytes at every run, so that a change of them is a change of the text.
"""

import datetime
import re
import zipfile
from pathlib import Path

import docx
from docx.enum.table import WD_TABLE_ALIGNMENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor
from reportlab import rl_config
from reportlab.lib import colors
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    KeepTogether,
    ListFlowable,
    ListItem,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "examples" / "knowledge"
EDITION = datetime.datetime(2026, 4, 1)
GREEN = "#2f6f5e"
PALE = "#eef4f1"
GREY = "#5b6660"


def blocks(markdown):
    """The few forms our two texts use: headings, paragraphs, bullets, numbers, tables."""
    for block in re.split(r"\n\s*\n", markdown.strip()):
        lines = block.splitlines()
        first = lines[0]
        if heading := re.match(r"(#+) (.*)", first):
            yield "heading", (len(heading[1]), heading[2])
        elif first.startswith("|"):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            yield "table", [row for i, row in enumerate(rows) if i != 1]
        elif first.startswith("- "):
            yield "bullets", [line[2:] for line in lines]
        elif re.match(r"\d+\. ", first):
            yield "numbers", [line.split(". ", 1)[1] for line in lines]
        else:
            yield "text", " ".join(lines)


def text_width_weights(rows):
    """How wide each column wants to be: its longest cell, within bounds, so that no column starves."""
    columns = len(rows[0])
    return [min(max(max(len(row[c]) for row in rows), 9), 46) for c in range(columns)]


# --- the manual, as PDF ------------------------------------------------------------------------------------------

BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=11, leading=16.5, spaceAfter=8, alignment=TA_LEFT)
CELL = ParagraphStyle("cell", parent=BODY, fontSize=10, leading=14, spaceAfter=0)
CELL_HEAD = ParagraphStyle("cell-head", parent=CELL, fontName="Helvetica-Bold", textColor=colors.white)
TITLE = ParagraphStyle("title", fontName="Helvetica-Bold", fontSize=30, leading=36, textColor=colors.HexColor(GREEN), spaceAfter=6)
LEAD = ParagraphStyle("lead", parent=BODY, fontSize=12, leading=18, textColor=colors.HexColor(GREY))
CHAPTER = ParagraphStyle(
    "chapter", fontName="Helvetica-Bold", fontSize=17, leading=22, textColor=colors.HexColor(GREEN), spaceBefore=20, spaceAfter=8
)
SECTION = ParagraphStyle("section", fontName="Helvetica-Bold", fontSize=12, leading=16, spaceBefore=10, spaceAfter=4)


def pdf_table(rows, width):
    weights = text_width_weights(rows)
    cells = [[Paragraph(cell, CELL_HEAD if r == 0 else CELL) for cell in row] for r, row in enumerate(rows)]
    table = Table(cells, colWidths=[width * w / sum(weights) for w in weights], repeatRows=1, hAlign="LEFT")
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor(GREEN)),
                ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, colors.HexColor(PALE)]),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.HexColor("#c5d3cc")),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 5.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 5.5),
            ]
        )
    )
    return table


def pdf_list(items, **kind):
    entries = [ListItem(Paragraph(item, BODY), spaceAfter=1) for item in items]
    return ListFlowable(entries, bulletFontName="Helvetica", bulletFontSize=10.5, leftIndent=16, spaceAfter=8, **kind)


def kettle(canvas, x, y, scale):
    """A small line drawing for the first page."""
    canvas.saveState()
    canvas.translate(x, y)
    canvas.scale(scale, scale)
    canvas.setLineWidth(3)
    canvas.setStrokeColor(colors.HexColor(GREEN))
    canvas.setFillColor(colors.HexColor(PALE))
    body = canvas.beginPath()
    body.moveTo(22, 16)
    body.lineTo(98, 16)
    body.curveTo(98, 60, 88, 84, 78, 88)
    body.lineTo(42, 88)
    body.curveTo(32, 84, 22, 60, 22, 16)
    body.close()
    canvas.drawPath(body, fill=1, stroke=1)
    spout = canvas.beginPath()
    spout.moveTo(25, 48)
    spout.curveTo(12, 52, 10, 68, 2, 74)
    spout.moveTo(2, 74)
    spout.curveTo(12, 80, 22, 76, 32, 74)
    canvas.drawPath(spout)
    handle = canvas.beginPath()
    handle.moveTo(88, 74)
    handle.curveTo(126, 82, 126, 34, 97, 32)
    canvas.drawPath(handle)
    canvas.line(42, 88, 46, 94)
    canvas.line(46, 94, 74, 94)
    canvas.line(74, 94, 78, 88)
    canvas.circle(60, 98, 4, fill=1)
    canvas.roundRect(14, 4, 92, 9, 4, fill=1)
    canvas.restoreState()


def furniture(canvas, document):
    canvas.saveState()
    canvas.setFont("Helvetica", 8.5)
    canvas.setFillColor(colors.HexColor(GREY))
    left, right = document.leftMargin, A4[0] - document.rightMargin
    canvas.drawString(left, 1.3 * cm, "Ottermere Kettle OM-2, user manual")
    canvas.drawRightString(right, 1.3 * cm, f"Page {document.page}")
    canvas.setStrokeColor(colors.HexColor("#c5d3cc"))
    canvas.line(left, 1.8 * cm, right, 1.8 * cm)
    if document.page == 1:
        kettle(canvas, right - 3.9 * cm, A4[1] - 5.3 * cm, 0.9)
    canvas.restoreState()


def flowables(markdown, width):
    headings, opening = [], True
    for kind, content in blocks(markdown):
        if kind == "heading" and content[0] == 1:
            yield Spacer(1, 1.9 * cm)
            yield Paragraph(content[1], TITLE)
        elif kind == "heading":
            level, title = content
            headings.append(Paragraph(title, CHAPTER if level == 2 else SECTION))
            opening = False
            continue
        elif kind == "text":
            yield from together(headings, Paragraph(content, LEAD if opening else BODY))
        elif kind == "table":
            yield from together(headings, pdf_table(content, width))
            yield Spacer(1, 8)
        elif kind == "bullets":
            yield from together(headings, pdf_list(content, bulletType="bullet", start="•"))
        else:
            yield from together(headings, pdf_list(content, bulletType="1", bulletFormat="%s."))
        headings = []


def together(headings, flowable):
    """A heading never stands alone at the foot of a page."""
    return [KeepTogether([*headings, flowable])] if headings else [flowable]


def write_pdf(source, target):
    rl_config.invariant = 1
    rl_config.useA85 = 0
    document = BaseDocTemplate(
        str(target),
        pagesize=A4,
        leftMargin=2.6 * cm,
        rightMargin=2.6 * cm,
        topMargin=2.2 * cm,
        bottomMargin=2.6 * cm,
        title="Ottermere Kettle: user manual",
        author="Ottermere Works",
        subject="Model OM-2",
        lang="en-GB",
    )
    frame = Frame(document.leftMargin, document.bottomMargin, document.width, document.height, id="page", leftPadding=0, rightPadding=0)
    document.addPageTemplates(PageTemplate(id="all", frames=[frame], onPage=furniture))
    document.build(list(flowables(source.read_text(encoding="utf-8"), document.width)))


# --- the warranty leaflet, as DOCX -------------------------------------------------------------------------------


def shade(cell, colour):
    shading = OxmlElement("w:shd")
    shading.set(qn("w:val"), "clear")
    shading.set(qn("w:fill"), colour.lstrip("#"))
    cell._tc.get_or_add_tcPr().append(shading)


def page_number(paragraph):
    run = paragraph.add_run()
    for kind, text in (("begin", None), (None, "PAGE"), ("end", None)):
        element = OxmlElement("w:instrText" if text else "w:fldChar")
        if text:
            element.text = text
        else:
            element.set(qn("w:fldCharType"), kind)
        run._r.append(element)


def docx_table(document, rows):
    table = document.add_table(rows=len(rows), cols=len(rows[0]), style="Table Grid")
    table.alignment = WD_TABLE_ALIGNMENT.LEFT
    weights = text_width_weights(rows)
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            cell = table.cell(r, c)
            cell.width = Cm(16.2 * weights[c] / sum(weights))
            run = cell.paragraphs[0].add_run(text)
            run.font.size = Pt(9.5)
            cell.paragraphs[0].paragraph_format.space_after = Pt(2)
            if r == 0:
                run.bold = True
                run.font.color.rgb = RGBColor(255, 255, 255)
                shade(cell, GREEN)
    document.add_paragraph().paragraph_format.space_after = Pt(2)


def write_docx(source, target):
    document = docx.Document()
    section = document.sections[0]
    section.page_width, section.page_height = Cm(21), Cm(29.7)
    section.left_margin = section.right_margin = Cm(2.4)
    normal = document.styles["Normal"]
    normal.font.name, normal.font.size = "Calibri", Pt(11)
    normal.paragraph_format.space_after = Pt(8)
    for level in (1, 2):
        style = document.styles[f"Heading {level}"]
        style.font.name, style.font.color.rgb = "Calibri", RGBColor.from_string(GREEN.lstrip("#").upper())
    for kind, content in blocks(source.read_text(encoding="utf-8")):
        if kind == "heading":
            document.add_heading(content[1], level=content[0])
        elif kind == "text":
            document.add_paragraph(content)
        elif kind == "table":
            docx_table(document, content)
        else:
            for item in content:
                document.add_paragraph(item, style="List Bullet" if kind == "bullets" else "List Number")
    foot = section.footer.paragraphs[0]
    foot.add_run("Ottermere Works, warranty and returns. Page ")
    page_number(foot)
    facts = document.core_properties
    facts.title, facts.author = "Warranty and returns", "Ottermere Works"
    facts.created = facts.modified = EDITION
    document.save(target)
    freeze(target)


def freeze(target):
    """Rewrites the package with the edition's date on every part, so that the bytes stay the same."""
    with zipfile.ZipFile(target) as package:
        parts = [(name, package.read(name)) for name in package.namelist()]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts:
            entry = zipfile.ZipInfo(name, EDITION.timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, content)


if __name__ == "__main__":
    write_pdf(HERE / "ottermere-kettle-manual.md", OUT / "ottermere-kettle-manual.pdf")
    write_docx(HERE / "warranty-and-returns.md", OUT / "warranty-and-returns.docx")
    for made in sorted(OUT.iterdir()):
        print(f"{made.stat().st_size:>8} {made.name}")
