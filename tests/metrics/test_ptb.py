import string

import pytest

from xmodal.metrics.ptb import tokenize_caption

# The right column is what the Java program (CoreNLP 3.4.1, -preserveLines -lowerCase) printed, without punctuation.
MEASURED = [
    ("A dog, a cat; and (maybe) a bird!", "a dog a cat and -lrb- maybe -rrb- a bird"),
    ("The man's dog isn't on the boys' sofa.", "the man 's dog is n't on the boys sofa"),
    ("They're sure it'll rain, but I'd go.", "they 're sure it 'll rain but i 'd go"),
    ("We cannot say what they're gonna do.", "we can not say what they 're gon na do"),
    ('A T-shirt that says "STOP".', "a t-shirt that says stop"),
    ("A sign reads 'no parking' at 5 o'clock.", "a sign reads no parking at 5 o'clock"),
    ("The clock shows 9:30pm, not 10:15 am.", "the clock shows 9:30 pm not 10:15 am"),
    ("Mr. Smith lives in St. Louis, Mo.", "mr. smith lives in st. louis mo."),
    ("A t.v. and a D.V.D player.", "a t.v. and a d.v.d player"),
    ("The U.S. flag on the corner of W. Main St.", "the u.s. flag on the corner of w. main st."),
    ("A black-and-white photo of a mother-in-law.", "a black-and-white photo of a mother-in-law"),
    ("Salt/pepper/oil and his/her hat.", "salt/pepper/oil and his/her hat"),
    ("AT&T and M&Ms and cats & dogs.", "at&t and m&m s and cats & dogs"),
    ("A cell phone., and a truck.;", "a cell phone. and a truck."),
    ("Number #25 costs $5.00 or 50%.", "number # 25 costs $ 5.00 or 50 %"),
    ("1,000 people and 1/2 an apple on 3/4-inch wood", "1,000 people and 1/2 an apple on 3/4-inch wood"),
    ("A 3-way stop and a 10-foot pole.", "a 3-way stop and a 10-foot pole"),
    ("Dunkin' Donuts and rock 'n' roll from the '70s", "dunkin' donuts and rock 'n' roll from the '70s"),
    ("Mickey O'Brien and Travis d'Arnaud eat hors d'oeuvres.", "mickey o'brien and travis d'arnaud eat hors d'oeuvres"),
    ("wow!! what?! hmm...  well -- yes - no", "wow !! what ?! hmm well yes no"),
    ("a dog.The cat", "a dog.the cat"),
    ('``quoted\'\' and ""double"" text', "quoted and double text"),
    ("Café \u2018naïve\u2019 don\u2019t \u201cgo\u201d \u2013 now", "café naïve do n't go now"),
    ("hi :) and bye ;-)", "hi :-rrb- and bye ;--rrb-"),
    ("a man [sic] on {set} <b>bold</b>", "a man -lsb- sic -rsb- on -lcb- set -rcb- <b> bold </b>"),
    ("'Tis lemme gimme wanna gotta", "'t is lem me gim me wan na got ta"),
    ("see no. 5 and fig. 3 etc.", "see no. 5 and fig. 3 etc."),
    ("vitamin C. The end, plan B. it goes", "vitamin c the end plan b. it goes"),
    ("an S.U.V. with 4x4 and mp3", "an s.u.v. with 4x4 and mp3"),
    ("www.example.com or me@example.com #tag @home", "www.example.com or me@example.com #tag @home"),
    ("ma'am, y'all and s'mores", "ma'am y' all and s'mores"),
    ("a - 5 b -5 +3", "a 5 b -5 +3"),
    ("a.m. and p.m. e.g., i.e. this", "a.m. and p.m. e.g. i.e. this"),
    ("a  double   space\tand tab", "a double space and tab"),
]


@pytest.mark.parametrize(("caption", "tokens"), MEASURED)
def test_equals_the_java_program(caption, tokens):
    assert tokenize_caption(caption) == tokens.split()


def test_nothing_is_lost_or_made_up():
    text = "The man's 3-way T-shirt (red) isn't at 9:30pm on W. Main St.; \"STOP\" it cannot."
    kept = [c for c in "".join(tokenize_caption(text)) if c.isalnum()]
    expected = [c for c in text.lower().replace("(", "lrb").replace(")", "rrb") if c.isalnum()]
    assert kept == expected


def test_tokens_of_tokens_are_the_same():
    for _, tokens in MEASURED[1:6]:
        assert tokenize_caption(tokens) == tokens.split()


def test_any_character_is_survived():
    for character in string.printable + "\x00\ufffd\u3042\U0001f600":
        assert tokenize_caption(f"a{character}b")[0].startswith("a")


def test_empty_captions_have_no_tokens():
    assert tokenize_caption("") == tokenize_caption("  \n") == tokenize_caption(" . , ") == []
