"""Pages built to stall a parser or to fill its memory: shapes whose cost may grow faster than the page."""

from __future__ import annotations


def _many(pattern: str, count: int) -> str:
    return "".join(pattern.replace("#", str(number)) for number in range(count))


def _nested(names: str, depth: int) -> str:
    tags = names.split()
    opened = [tags[level % len(tags)] for level in range(depth)]
    return "".join(f"<{tag}>" for tag in opened) + "text" + "".join(f"</{tag}>" for tag in reversed(opened))


N = 20_000

REFUSED = {
    "fonts left open in each paragraph": _many("<font size=#><p>x", N),
    "fonts left open, paragraphs closed": _many("<p><font size=#>x</p>", N),
    "fonts left open in each division": _many("<div><font color=#>x</div>", N),
    "fonts left open in list items": "<ul>" + _many("<li><font face=#>x", N),
    "fonts left open in headings": _many("<h2><b class=#>x</h2>", N),
    "fonts left open in definitions": "<dl>" + _many("<dt><i id=#>x<dd>y", N),
    "fonts left open in sections": _many("<section><tt id=#>x</section>", N),
    "every formatting element": _many("<b i=#><i i=#><u i=#><s i=#><code i=#><em i=#><p>x", N // 4),
    "three of each": _many("<b c=#><b c=#><b c=#><p>x", N // 2),
    "with many attributes": _many("<font " + " ".join(f"a{one}=#" for one in range(50)) + "><p>x", 2_000),
    "opened first, paragraphs later": "<p>" + _many("<font size=#>", 2_500) + _many("<p>x", N),
    "in capitals": _many("<FONT SIZE=#><P>x", N),
    "behind a quoted angle bracket": _many('<font title=">#"><p>x', N),
    "behind an angle bracket in a name": _many("<font a<b=#><p>x", N),
    "behind a slash": _many("<font/size=#><p>x", N),
    "behind a comment that ends at once": "<!-->" + _many("<font size=#><p>x", N),
    "behind a comment with an exclamation mark": "<!-- --!>" + _many("<font size=#><p>x", N),
    "behind a script that was not closed in capitals": "<script></SCRIPT >" + _many("<font size=#><p>x", N),
    "in a title that a select ignores": "<select><title></select>" + _many("<font size=#><p>x", N),
    "in a style of SVG": "<svg><style>" + _many("<font size=#><p>x", N),
    "in a script of MathML": "<math><script>" + _many("<font size=#><p>x", N),
    "in a text area": "<textarea></textarea>" + _many("<font size=#><p>x", N),
    "foster parents": "<table>" + _many("<font size=#><p>x", N),
    "foster parents in rows": _many("<table><tr><font size=#>x</tr></table><p>y", N),
    "in a cell": "<table><tr><td>" + _many("<font size=#><p>x", N),
    "in a template": "<template>" + _many("<font size=#><p>x", N),
    "in an object": "<object>" + _many("<font size=#><p>x", N),
    "in a button": "<button>" + _many("<font size=#><p>x", N),
    "line breaks build again": _many("<font size=#></p>", 3_000) + _many("<p><br></p>", N),
    "images build again": _many("<div><small id=#><img></div>", N),
    "divisions": _nested("div", 100_000),
    "divisions left open": "<div>" * 100_000 + "x",
    "lists": _nested("ul li", 50_000),
    "tables": _nested("table tr td", 30_000),
    "spans": _nested("span", 100_000),
    "elements nobody knows": _nested("x-a x-b", 50_000),
    "quotations in quotations": _nested("blockquote", 50_000),
    "formatting inside formatting": _many("<i id=#>", 10_000),
    "links that hold blocks": _nested("a div", 50_000),
    "SVG in SVG": _nested("svg g", 50_000),
    "templates": _nested("template", 50_000),
    "selections": _nested("select option optgroup", 50_000) + "<div>" * 5_000,
    "attributes of one tag": "<div " + _many("a#=1 ", 100_000) + ">x",
    "attributes without values": "<p " + _many("a# ", 100_000) + ">x",
    "end tags of what is not open": "<div>" * 2_900 + "</section>" * 200_000,
    "paragraphs that no paragraph ends": "<span>" * 2_900 + "</p>" * 200_000,
}
"""Refused before anything is built."""

ANSWERED = {
    "a comment left open": "<p>text<!--" + "-" * 1_000_000,
    "comments in comments": "<!--" * 200_000,
    "comments left open": "<p>x<!" * 200_000,
    "instructions left open": "<?" * 200_000,
    "a tag left open": "<div " + "x" * 1_000_000,
    "a quote left open": "<a href='" + "x" * 1_000_000,
    "angle brackets": "<" * 1_000_000,
    "tags that end at once": "</>" * 300_000,
    "entities": "&amp;&CounterClockwiseContourIntegral;&#x1F600;" * 50_000,
    "entities left open": "&amp" * 200_000 + "&#x" * 200_000,
    "references to nothing": "&#7;&#0;&#xFFFF;&#99999999999999999999;" * 30_000,
    "a script left open": "<script>" + "x < y; " * 200_000,
    "end tags in a script with quotes left open": "<script>" + "</s a=\"'" * 100_000,
    "escaped scripts": "<script><!--<script>" * 50_000,
    "a style left open": "<style>" + "a{b:c}" * 200_000,
    "plain text to the end": "<plaintext>" + "<p>x" * 200_000,
    "character data": "<svg><![CDATA[" + "]]" * 400_000,
    "doctypes": "<!DOCTYPE html>" * 100_000,
    "end tags of formatting": "</b>" * 200_000,
    "paragraphs nobody opened": "</p>" * 100_000,
    "the adoption agency": _many("<b><p>x</b>", 5_000),
    "the adoption agency, crossed": _many("<a href=#><div>x</a>", 1_000),
    "links in links": _many("<a href=#>x", 50_000),
    "options": "<select>" + _many("<option>#", 50_000),
    "cells": "<table>" + _many("<td>#", 30_000),
    "rows": "<table>" + _many("<tr><td>#", 20_000),
    "text in a table": "<table>" + "x<tr>" * 50_000,
    "frames": "<frameset>" + "<frame>" * 100_000,
    "bodies": "<body a=1>" * 100_000,
    "forms": "<form>" * 2_000,
    "list items": "<ul>" + "<li>x" * 50_000,
    "one long line": "x" * 3_000_000,
    "blanks": " \n\t" * 500_000,
    "line feeds in a listing": "<pre>" + "\n" * 1_000_000,
    "nothing but nulls": "\0" * 500_000,
    "direction marks": "\u202e" * 300_000,
    "one base and its marks": "a" + "\u0301" * 500_000,
}
"""Linear for a parser that does as the standard says, if not for every engine: they end in text or without, in time."""
