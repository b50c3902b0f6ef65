"""Penn Treebank tokens in pure Python, the way the caption metrics want them.

Published caption scores are computed on the output of Stanford's PTBTokenizer (CoreNLP 3.4.1, a Java program) with its
punctuation tokens taken out. `tokenize_caption` gives the same tokens for English captions without Java. The rules
were written from the program's output, not from its source, and compared with it on 251,064 distinct sentences of COCO,
Flickr8k, Multi30k and SNLI. It is not a general tokenizer.

One line is one caption. (The Java program sees all captions as one text, where a line can change the end of the one
before; it does so only in punctuation that is dropped.)
"""

import re
from collections.abc import Iterator

# The tokens that coco-caption drops. The lower-casing comes first there, so that brackets ("-lrb-") stay in.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Words that keep their full stop: in any case, only when capitalised, and only before a number.
_ABBREVIATIONS = (
    "jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|mon|tues|tue|wed|thurs|thu|fri|ala|ariz|calif|colo|conn|"
    "dak|fla|ga|ind|kans|kan|ky|md|mich|minn|mo|mont|nebr|neb|nev|okla|penn|tenn|va|vt|wisc|wis|wyo|adm|alex|"
    "asst|assn|assoc|atty|ave|bancorp|bhd|bldg|blvd|brig|bros|capt|cf|cie|cmdr|comdr|corp|cos|co|col|cpl|ct|"
    "dept|det|drs|dr|elec|ens|esq|est|etc|ext|ft|gen|govs|gov|hon|inc|insp|intl|invt|jos|jr|lieut|ltd|lt|maj|"
    "messrs|mfg|mlle|mme|mrs|mr|ms|mt|natl|pfc|ph|plc|pres|profs|prof|pte|pty|pvt|rd|reps|rep|rev|sens|sen|"
    "sgt|sq|sr|ste|st|supt|sys|tel|treas|univ|vs|wm"
)
_STATES = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_NUMBERED = "nos?|figs?|prop|art|ca|pp|op"
# After a single letter with a full stop these words begin a new sentence, and the stop is a token of its own.
_SENTENCE_STARTS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|"
    "Now|Once|One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|"
    "While|Yet|You"
)
_SPLIT_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "lemme": 3, "gimme": 3, "'tis": 2, "'twas": 2}
_REPLACED = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"'},
}

_TYPOGRAPHIC = str.maketrans(
    {
        **{
            "\u201c": "``",
            "\u201d": "''",
            "\u2018": "`",
            "\u2019": "'",
            "\u2013": "--",
            "\u2014": "--",
            "\u2026": "...",
        },
        **{"€": "$", "£": "#", "¢": " cents ", "½": "1/2", "¼": "1/4", "¾": "3/4"},
    }
)

_L = r"[^\W\d_]"  # a letter
_A = r"[^\W_]"  # a letter or a digit
_CLITIC = rf"'(?i:ll|re|ve|[dms])(?!{_A})"
_NOT = rf"(?i:n't)(?!{_A})"
_NUMBER = r"(?:\d+(?:[.,:]\d+)+|[.,:]\d+(?:[.,:]\d+)*)"
_THING = rf"(?:[dolDOL]')?{_A}+(?:[-_](?:[dolDOL]')?{_A}+)*"
_SLASHED = rf"{_A}+(?:-{_L}+){{0,2}}(?:/{_A}+(?:-{_L}+){{0,2}}){{1,2}}"
_PATTERN = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<tag></?[a-zA-Z][^<>]*>)
    | (?P<address>(?:https?://|www\.)[^\s"<>|()]+|[a-zA-Z0-9][\w.%+-]*@[\w-]+(?:\.[\w-]+)+|[@\#][a-zA-Z_]\w*)
    | (?P<smiley>[:;=]-?[()D])
    | (?P<dots>\.{{3,5}}|\.(?:\ \.){{2,4}})
    | (?P<dash>-{{2,}})
    | (?P<clitic>{_CLITIC}|{_NOT})
    | (?P<elision>'(?i:n'|[2-9]0s|(?:n|em|cause|\d\d|till?|tis|twas)(?!{_A})))
    | (?P<initial>{_L}\.(?!{_L})(?!\s+(?:{_SENTENCE_STARTS})(?!{_A})))
    | (?P<acronym>{_L}(?:\.{_L})+(?!{_A})\.?(?:-{_A}+)?)
    | (?P<short>(?i:{_ABBREVIATIONS})\.(?!{_A}) | (?:{_STATES}|{_STATES.upper()})\.(?!{_A})
        |(?i:ph\.d\.?)(?!{_A}))
    | (?P<counted>(?i:{_NUMBERED})\.(?=\s*\d))
    | (?P<stopped>{_THING}\.(?=[,;:]))
    | (?P<dotted>{_L}{_A}*(?:\.{_L}{_A}*)+)
    | (?P<negated>{_A}+?(?={_NOT}))
    | (?P<apostrophe>[A-HJ-XZn]'{_L}{{2,}}|(?!{_L}+{_CLITIC}){_L}+[aeiouyAEIOUY]'[aeiouA-Z]{_L}*(?!{_A})
        |(?i:dunkin'|somethin'|ol'|s'mores|c'mon)(?!{_A})|[jJyY]'(?={_L}))
    | (?P<ampersand>[A-Z]+(?:[+&][A-Z]+)+)
    | (?P<number>[-+]?{_NUMBER}(?:-{_L}+)*|[-+]\d+(?!{_A}))
    | (?P<slashed>{_SLASHED})
    | (?P<word>{_THING}|_+)
    | (?P<quote>''|``|["'`])
    | (?P<entity>&(?:amp|lt|gt|quot);)
    | (?P<mark>[!?]+|.)
    """,
    re.VERBOSE,
)


def tokenize_caption(text: str) -> list[str]:
    """Return the tokens that caption metrics count: Penn Treebank tokens, lower case, without punctuation.

    Example:
        >>> tokenize_caption("A man's T-shirt isn't red, but his dog (wet) is.")
        ['a', 'man', "'s", 't-shirt', 'is', "n't", 'red', 'but', 'his', 'dog', '-lrb-', 'wet', '-rrb-', 'is']
    """
    return [token for token in _treebank_tokens(text) if token not in PUNCTUATION]


def _treebank_tokens(text: str) -> Iterator[str]:
    text = text.translate(_TYPOGRAPHIC)
    for match in _PATTERN.finditer(text):
        kind, token = match.lastgroup, match.group().lower()
        if kind == "space":
            continue
        if token in _SPLIT_WORDS:
            cut = _SPLIT_WORDS[token]
            yield from (token[:cut], token[cut:])
        elif kind == "smiley":
            yield token[:-1] + _REPLACED.get(token[-1], token[-1])
        elif kind == "dash":
            yield "--"
        elif kind == "dots":
            yield "..."
        elif kind == "quote" and len(token) == 1:
            opens = token == "`" or re.match(r"[^\W_]|\$", text[match.end() :]) is not None
            yield ("``" if opens else "''") if token == '"' else ("`" if opens else "'")
        else:
            yield _REPLACED.get(token, token)
