"""Texts and tables for LaTeX."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kvw.report.latex import SPECIAL, comments, escaped, tabular

DANGEROUS = '&%$#_{}\\~^<>|"\n'
COMMANDS = re.compile(r"\\(?:text[a-z]+\{\}|[&%$#_{}])")


def test_each_special_character_is_shown_as_it_is():
    assert escaped("a_b & 100 % {x} #1 $") == r"a\_b \& 100 \% \{x\} \#1 \$"
    assert escaped('\\~^<>|"') == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}\textquotedbl{}"
    )
    assert escaped("two\nlines") == "two lines"
    assert escaped("Anaïs 李") == "Anaïs 李"


@given(st.text(alphabet=st.characters() | st.sampled_from(DANGEROUS)))
def test_nothing_is_left_that_latex_would_take_for_its_own(text):
    rest = COMMANDS.sub("", escaped(text))
    assert not set(rest) & set(DANGEROUS)
    assert len(COMMANDS.findall(escaped(text))) == sum(
        ord(letter) in SPECIAL and letter not in "\n\r" for letter in text
    )


def test_a_comment_is_one_line():
    assert comments(["a\nb", "c"]) == "% a b\n% c\n"


def test_columns_with_one_heading_share_it():
    text = tabular([("a_", "x"), ("a_", "y"), ("b", "z")], [[["m", "1", "2", "3"]], [], [["n", "4", "5", "6"]]])
    assert text.splitlines() == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"& \multicolumn{2}{c}{a\_} & \multicolumn{1}{c}{b} \\",
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}",
        r"& x & y & z \\",
        r"\midrule",
        r"m & 1 & 2 & 3 \\",
        r"\midrule",
        r"n & 4 & 5 & 6 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
