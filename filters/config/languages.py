"""Codes of languages in configs: those that language identification can give, and what may be meant by another."""

from __future__ import annotations

import difflib
import re
from typing import Annotated

from pydantic import AfterValidator

_NAMES = """
af Afrikaans, als Alemannic, am Amharic, an Aragonese, ar Arabic, arz Egyptian Arabic, as Assamese, ast
Asturian, av Avaric, az Azerbaijani, azb South Azerbaijani, ba Bashkir, bar Bavarian, bcl Central Bikol, be
Belarusian, bg Bulgarian, bh Bihari, bn Bangla, bo Tibetan, bpy Bishnupriya, br Breton, bs Bosnian, bxr Buryat,
ca Catalan, cbk Chavacano, ce Chechen, ceb Cebuano, ckb Central Kurdish, co Corsican, cs Czech, cv Chuvash, cy
Welsh, da Danish, de German, diq Zazaki, dsb Lower Sorbian, dty Doteli, dv Divehi, el Greek, eml Emilian-
Romagnol, en English, eo Esperanto, es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, fr French, frr
Northern Frisian, fy Western Frisian, ga Irish, gd Scottish Gaelic, gl Galician, gn Guarani, gom Goan Konkani,
gu Gujarati, gv Manx, he Hebrew, hi Hindi, hif Fiji Hindi, hr Croatian, hsb Upper Sorbian, ht Haitian Creole, hu
Hungarian, hy Armenian, ia Interlingua, id Indonesian, ie Interlingue, ilo Iloko, io Ido, is Icelandic, it
Italian, ja Japanese, jbo Lojban, jv Javanese, ka Georgian, kk Kazakh, km Khmer, kn Kannada, ko Korean, krc
Karachay-Balkar, ku Kurdish, kv Komi, kw Cornish, ky Kyrgyz, la Latin, lb Luxembourgish, lez Lezghian, li
Limburgish, lmo Lombard, lo Lao, lrc Northern Luri, lt Lithuanian, lv Latvian, mai Maithili, mg Malagasy, mhr
Eastern Mari, min Minangkabau, mk Macedonian, ml Malayalam, mn Mongolian, mr Marathi, mrj Western Mari, ms
Malay, mt Maltese, mwl Mirandese, my Burmese, myv Erzya, mzn Mazanderani, nah Nahuatl, nap Neapolitan, nds Low
German, ne Nepali, new Newari, nl Dutch, nn Norwegian Nynorsk, no Norwegian, oc Occitan, or Odia, os Ossetic, pa
Punjabi, pam Pampanga, pfl Palatine German, pl Polish, pms Piedmontese, pnb Western Punjabi, ps Pashto, pt
Portuguese, qu Quechua, rm Romansh, ro Romanian, ru Russian, rue Rusyn, sa Sanskrit, sah Yakut, sc Sardinian,
scn Sicilian, sco Scots, sd Sindhi, sh Serbo-Croatian, si Sinhala, sk Slovak, sl Slovenian, so Somali, sq
Albanian, sr Serbian, su Sundanese, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, tk Turkmen,
tl Tagalog, tr Turkish, tt Tatar, tyv Tuvinian, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vec Venetian, vep
Veps, vi Vietnamese, vls West Flemish, vo Volapük, wa Walloon, war Waray, wuu Wu Chinese, xal Kalmyk, xmf
Mingrelian, yi Yiddish, yo Yoruba, yue Cantonese, zh Chinese
"""
"""Codes and English names of the 176 languages of lid.176."""
_OTHER = """
bengali bn, farsi fa, filipino tl, flemish nl, mandarin zh, punjabi pa, cn zh, cz cs, dk da, gr el, in id, iw he, jp ja,
kr ko, nb no, se sv, ua uk, vn vi, us en, gb en, deu de, ger de, eng en, fra fr, fre fr, spa es, por pt, ita it, nld nl,
dut nl, dan da, swe sv, nor no, nob no, nno nn, fin fi, pol pl, ces cs, cze cs, slk sk, slv sl, hun hu, ron ro, rum ro,
bul bg, ell el, gre el, rus ru, ukr uk, tur tr, ara ar, heb he, fas fa, per fa, hin hi, ben bn, urd ur, zho zh, chi zh,
cmn zh, jpn ja, kor ko, vie vi, tha th, ind id
"""
"""What people write instead: other names, country codes, ISO 639-3."""


def _pairs(text: str) -> list[tuple[str, str]]:
    entries = (entry.partition(" ") for entry in text.replace("\n", " ").strip().split(", "))
    return [(code, name) for code, _, name in entries]


NAMES = dict(_pairs(_NAMES))


def check_code(code: str) -> str:
    """`code`, if language identification can give it.

    Raises:
        ValueError: it cannot; says what may be meant.
    """
    if code in NAMES:
        return code
    meant = _meant(code.strip().lower())
    hint = f"did you mean {meant!r} ({NAMES[meant]})?" if meant else f"known are {', '.join(NAMES)}"
    raise ValueError(f"{code!r:.60} is no language code of lid.176; {hint}")


def _meant(text: str) -> str | None:
    by_name = {name.lower(): code for code, name in NAMES.items()} | dict(_pairs(_OTHER))
    first = re.split(r"[-_ ]", text)[0]
    for candidate in (text, first):
        if candidate in by_name or candidate in NAMES:
            return by_name.get(candidate, candidate)
    close = difflib.get_close_matches(text, by_name, n=1, cutoff=0.75) if len(text) > 3 else []
    return by_name[close[0]] if close else None


LanguageCode = Annotated[str, AfterValidator(check_code)]
"""A code that language identification can give: ISO 639-1 where there is one ("en"), else ISO 639-3."""
