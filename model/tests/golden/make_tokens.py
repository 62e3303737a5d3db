"""Makes tokens.json, OpenCLIP's own ids of captions of every kind. Never part of the gate; run it by hand:

    python3 -m venv V
    V/bin/pip install torch==2.11.0 open_clip_torch==3.3.0 ftfy==6.3.1
    V/bin/python make_tokens.py

A line is a text, the context length if it is not 32, and the row of ids without the zeros at its end.
tokens_differ.json is kept by hand: it holds what this library reads otherwise, and why.
"""

import json
from pathlib import Path

import ftfy.bad_codecs  # noqa: F401, it names the sloppy encodings
import open_clip

HERE = Path(__file__).parent

PLAIN = [
    "a photo of a cat", "A Photo of the Lemon SVG theme!", "1999 was 20 years ago: 3.14159", "gramastar", "x",
    "e-mail: someone@example.org", "http://example.org/a?b=c#d", "snake_case_word and CamelCaseWord", "#hashtag @name $5.00 100%",
    "supercalifragilisticexpialidocious", "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "(brackets) [square] {curly} <angle>", "dots... and --- dashes -- here", "icon of a blue folder, 48x48 (tango)",
    "stop sign; traffic-sign / road & street", "Vintage 1968 Ford Mustang GT390 -- for sale!!!", "IMG_20190704_153012.jpg",
    "50% OFF *today only* (was: $19.99)", "C:\\Users\\me\\cat.png", "^_^ :-) ;-P <3 \\o/", "a|b~c`d\"e", "WWW.EXAMPLE.COM/INDEX.HTML",
]

CONTRACTIONS = [
    "don't stop, we'll see they've I'm he'd it's you're", "rock'n'roll 80's", "'s", "''s", "'tis the season", "'string 'thing 'really 'very 'me 'llama 'dog",
    "DON'T WE'LL THEY'VE I'M HE'D IT'S YOU'RE", "O'Reilly's d'Ivoire l'\u00e9t\u00e9", "the dogs' bowls", "!'s ?'t .'re", "'", "' s ' t", "it\u2019s we\u2019re don\u2019t",
    "it\u02bcs it\u201bs it`s it\u00b4s", "y'all'd've", "'\u017f is a long s", "mother-in-law's", "flag of C\u00f4te d'Ivoire",
]

WHITE_SPACE = [
    "two\tspaces   and\nlines", "  leading and trailing  ", "a\r\nb\rc\n\nd", "a\x0bb\x0cc", "a\u00a0b\u2003c\u2009d\u202fe\u3000f", "a\u2028b\u2029c", "a\x85b",
    "a\x1cb\x1dc\x1ed\x1ff", "\ufeffwith a mark", "zero\u200bwidth\u200cjoin\u200der\u2060word", "soft\u00adhyphen", "\u1680ogham\u180espace",
    "tab\there\t", "line one\nline two &amp; <b>\nline three &amp; more", "a&nbsp;b&#160;c&#x2003;d&emsp;e&#10;f&NewLine;g&Tab;h", "right\u200fto\u200eleft\u202amarks\u202c",
]

CONTROLS = [
    "\x1b[31mred\x1b[0m and \x1b[1;32mgreen\x1b[m", "\x1b[2Jcleared \x1b no escape \x1b[", "bell\x07 back\x08space nul\x00 del\x7f", "\u206adeprecated\u206f \ufff9notes\ufffb \ufffcobject",
    "\x80uro and \x93quotes\x94 and \x85", "\x81\x8d\x8f\x90\x9d", "caf\xe9 \x96 na\xefve \x97", "sub\x1astitute \ufffd replacement", "\x1b[\u0663m arabic digit",
]

SPECIAL = [
    "<start_of_text> hello <end_of_text>", "<START_OF_TEXT> Hello <End_Of_Text>", "!<end_of_text>", "a<end_of_text>b", "< end_of_text >", "<end_of_text", "<\u017ftart_of_text>",
    "&lt;end_of_text&gt;", "&amp;lt;start_of_text&amp;gt; x", "<|endoftext|> </w> <w>", "<end_of_text><end_of_text>", "\uff1cend_of_text\uff1e",
]

ENTITIES = [
    "Tom &amp; Jerry &lt;3 &quot;cheese&quot;", "AT&amp;amp;T", "&#169; 2009 &#xe9;t\u00e9 &nbsp; fin", "&amp;amp;amp;amp;amp;lt;", "&copy 2019 &reg; &trade; &hellip; &mdash;",
    "caf&eacute; na&iuml;ve &uuml;ber stra&szlig;e", "P&EACUTE;REZ BUNDESSTRA&SZLIG;E &NTILDE; &nTILDE;", "&#128; &#130; &#145;x&#146; &#147;y&#148; &#150; &#153; &#159;",
    "&#0; &#1; &#8; &#11; &#13; &#31; &#127; &#129;", "&#xD800; &#xDFFF; &#x110000; &#99999999999;", "&#xFDD0; &#xFFFE; &#x1FFFF; &#x10FFFF; end", "&#39;quoted&#39; &#x27;hex&#X27; &apos;",
    "&ampfoo &ltbar &gtbaz &notit; &notin; &copyright", "this&not that &para &sect;", "& && &; &# &#; &#x; &#xg; &abc;", "&Jscr;ohn &HilbertSpace;ancock &checkmark;",
    "&NotEqualTilde; &ThickSpace; &fjlig; &bne;", "&CounterClockwiseContourIntegral; &DoubleLongLeftRightArrow;", "&semi; &SEMI; &amp;semi; &#59; &#x3b;", "&#65&#66;&#67 &#x44&#x45;",
    "&AMP; &LT; &GT; &QUOT; &COPY; &REG;", "&Amp; &aMP; &Eacute; &eACUTE;", "<b>&eacute;</b> &amp; &lt;i&gt;", "first &eacute;\nthen < here &eacute;\nlast &eacute;", "&lt;p&gt;A &amp;quot;quote&amp;quot;&lt;/p&gt;",
    "&rsquo;s it&rsquo;s &lsquo;so&rsquo; &ldquo;it&rdquo;", "&frac12; &sup2; &deg; &times; &divide; &plusmn;", "&Alpha;&beta;&Gamma; &Sigma;&sigma;&sigmaf;", "&#1055;&#1088;&#1080;&#1074;&#1077;&#1090;",
    "&#x1F600; &#128049; &#x2764;&#xFE0F;", "&hearts; &spades; &clubs; &diams; &star;", "&euro;5 &pound;6 &yen;7 &cent;8", "&Atilde;&copy; &Acirc;&reg; &acirc;&euro;&trade;", "&amp;eacute; &amp;#233; &amp;amp;eacute;",
    "a&b c&d;e AT&T R&D Q&A;", "http://x.org/?a=1&lt=2&copy=3&amp;b", "&#x41;&#x0000042;&#00067;", "&zwj;&zwnj;&shy;&lrm;x", "&#\u0663; &\u00e9;", "&GTDOT; &DAGGER; &ALPHA; &HEARTS;",
    "&abcdefghijklmnopqrstuvwxyz;", "&a1b2; &frac1; &there4; &sup1", "it&#8217;s &#8220;fine&#8221; &#8230;", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;", "Ben &amp Jerry's &amp; co &AMP co",
]

UNICODE = [
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe", "\u00c5ngstr\u00f6m \u00d8RSTED", "\u65e5\u672c\u8a9e\u306e\u732b", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u201ccurly\u201d \u2018quotes\u2019 \u201elow\u201f \u201alow\u201b",
    "\u0394\u03b5\u03bb\u03c4\u03b1 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", "\uff26\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48\uff01", "\uff8a\uff9d\uff76\uff78 \uff76\uff9e\uff77\uff9e \uffe5100 \uffe3 \uffe8", "\ufb01ne \ufb02ow o\ufb00er a\ufb03x \ufb05op \ufb06",
    "\u0132sland \u0133s \u0149 \u01c4 \u01c5 \u01c6 \u01c7 \u01ca \u01f1", "\u0130stanbul I\u0131i\u0130", "STRASSE Stra\u00dfe STRA\u1e9eE", "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03a3 \u0391\u03a3. \u0391\u03a3'", "\u212aelvin \u212bngstr\u00f6m \u2126hm", "\u017fong \u017f",
    "\uac00\ub098\ub2e4 \u1112\u1161\u11ab\u1100\u1173\u11af", "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u093c", "\u0e20\u0e32\u0e1e\u0e41\u0e21\u0e27", "Ti\u1ebfng Vi\u1ec7t \u0110\u00e0 N\u1eb5ng", "e\u0301 a\u030a o\u0308\u0304 n\u0303 q\u0323\u0307", "\u0345\u0301 \u03b1\u0345", "\u304b\u3099 \u30cf\u309a \u1e9b\u0323",
    "\u4e2d\u6587\uff0c\u6807\u70b9\u3002\u300c\u5f15\u53f7\u300d", "\u00abguillemets\u00bb \u2039x\u203a \u2014 \u2013 \u2026 \u2022", "\u00bfQu\u00e9? \u00a1Hola! \u2116 5", "\u1c88\ua64a \u13a0\uab70", "\u24b6\u24d0 \u2160\u2170", "\U0001d400\U0001d41a \U00010400\U00010428", "\ufb1d \u0958 \u2f00 \uf900", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \ufdfa \u0640",
    "\u00b5m \u00aa \u00ba \u00b7 \u00d7 \u00f7", "\ue000private \uf8ff", "\U000e0041 tags \u2066x\u2069", "\u1e9e\u00df\u0149\u01f0", "G\u00f6teborg \u00c6r\u00f8 \u00deingvellir \u0141\u00f3d\u017a \u017du\u017eemberk", "Qu\u00e9bec, d\u00e9j\u00e0 vu, cr\u00e8me br\u00fbl\u00e9e", "S\u00e3o Paulo \u00e0 noite", "\u00c0 la carte \u00c2ge",
]

NUMBERS = [
    "half \u00bd and \u00b2 super", "10\u00b2 x\u00b3 \u2074 \u2082", "\u2167 \u216f \u2188", "\u0663\u0664\u0665 \u06f1\u06f2", "\u0967\u0968\u0969", "\u2460\u2473 \u3249 \u24ea", "\u3007\u4e00\u4e8c\u4e94", "\U0001d7d9\U0001d7da \U0001f101", "1,000,000.00", "12ab34", "\uff11\uff12\uff13", "3\u00d74=12 \u00b15\u00b0C", "\u00bc\u00be\u2153 \u0d73",
]

EMOJI = [
    "emoji \U0001f600\U0001f431 party", "\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "\U0001f3f3\ufe0f\u200d\U0001f308 flag", "\U0001f44d\U0001f3fd ok", "\U0001f1e9\U0001f1ea \U0001f1eb\U0001f1f7", "\u2764\ufe0f \u2665 \u263a", "1\ufe0f\u20e3 #\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", "cat\U0001f431cat", "\U0001f600\U0001f600\U0001f600!!!", "\u2728New\u2728 \u2b50\u2b50", "(\u256f\u00b0\u25a1\u00b0)\u256f\ufe35 \u253b\u2501\u253b", "\u00af\\_(\u30c4)_/\u00af", "\u2502\u2550\u2591 box",
]

EMPTY = ["", " ", "\n", "\t \r\n", "\u3000", "\ufeff", "&nbsp;", "&#1;", "\x00\x01", "\x1b[0m"]

# What mojibake is made of: sound text, misread below.
SOUND = [
    "caf\u00e9 M\u00fcller, Z\u00fcrich: Stra\u00dfe", "it\u2019s \u201creally\u201d great\u2026 \u2013 yes\u2122", "L\u2019\u00e9t\u00e9 \u00e0 la plage", "S\u00e3o Paulo \u00e0 noite", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03bd\u03b7\u03c3\u03b9\u03ac",
    "\u65e5\u672c\u8a9e\u306e\u732b", "emoji \U0001f600 and \U0001f431", "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd", "\u20ac20 \u00a315 \u00bd \u00b0C", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643", "\u00a9 2019 Company\u00ae", "Ti\u1ebfng Vi\u1ec7t", "\u0130stanbul g\u00fcn bat\u0131m\u0131", "\u0939\u093f\u0928\u094d\u0926\u0940",
]
MISREAD_AS = [
    "latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253", "sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437",
]


def misread(text, *encodings):
    for encoding in encodings:
        text = text.encode("utf-8").decode(encoding)
    return text


def surrogates(text):
    """UTF-8 of UTF-16's halves, as some databases store emoji."""
    units = text.encode("utf-16-be")
    halves = "".join(chr(units[i] << 8 | units[i + 1]) for i in range(0, len(units), 2))
    return halves.encode("utf-8", "surrogatepass")


def mojibake():
    for place, text in enumerate(SOUND):
        for step in range(5):
            yield misread(text, MISREAD_AS[(place + 2 * step + step // 3) % len(MISREAD_AS)])
    windows, latin = "sloppy-windows-1252", "latin-1"
    for text in SOUND[:4] + SOUND[7:8]:
        yield misread(text, windows, windows)
        yield misread(text, latin, windows)
        yield misread(text, windows, windows, windows)
    for text in SOUND[:8]:
        yield f"Sound \u4e2d {misread(text, windows)} text\u2019s end"
        yield misread(text, windows) + " / " + misread(text, "sloppy-windows-1251")
    for text in SOUND[:10]:  # a no-break space lost inside a character
        yield misread(text + " \u00e0 voil\u00e0 \u0160 \u03a0 \u0420", windows).replace("\xa0", " ")
    for text in SOUND[:8]:  # bytes that have no character
        lost = misread(text, windows)
        yield "".join("\ufffd" if c in "\x81\x8d\x8f\x90\x9d\u2122\u201c" else c for c in lost)
        yield lost.replace("\u00a9", "?").replace("\x9d", "?")
    for text in ["party \U0001f389", "\U0001f468\u200d\U0001f469 family", "caf\u00e9 \U0001f431\n"]:
        yield surrogates(text).decode(latin)
        yield surrogates(text).decode(windows)
    yield from [
        "\u00c3 la carte", "voil\u00c3  le travail", "\u00c3 quele \u00c3 s vezes \u00c3 lgebra", "nul \u00c0\u0080 in Java", "\u00c3\u00a9t\u00c3\u00a9 \u00c3\u20ac\u00c0\n", "100\u00c2\u00b0 \u00c2\u00a3 \u00c2 ", "l\u00e2\u20ac\u2122\u00c3\u00a9t\u00c3\u00a9 &amp; l\u00e2\u20ac\u2122hiver",
        "&acirc;&euro;&trade; &Atilde;&copy;", "\u00e2\u0153\u201d No problems", "(\u00e0\u00b8\u2021'\u00e2\u0152\u00a3')\u00e0\u00b8\u2021", "\u00c2\u00ac\u2020 \u00ac\u2020", "\u00d8\u00a7\u00d9\u201e\u00d8\u00b9\u00d8\u00b1", "\u0432\u0402\u201d \u0413\u045e\u0412\u0402\u0412\u2122 a", "\u03b2\u20ac\u2122s \u0101\u20ac\u2122s",
        "\u221a\u00a9t\u221a\u00a9 \u201a\u00c4\u00eatoo\u201a\u00c4\u00f4", "sch\u00f6n\u00a4\u00a6", "\u0152uvre \u0153\u00b0",
    ]


LONG = [
    " ".join("abcdefghijklmnopqrstuvwxyz" * 2), "cat " * 100, "a" * 300, "\u65e5\u672c\u8a9e" * 60, "!?" * 90, "caf\u00e9 " * 90, "antidisestablishmentarianism" * 12, "0123456789" * 12, misread("\u00e9t\u00e9 ", "latin-1") * 60, "\U0001f431" * 80,
    "An aerial view of a small fishing village on the coast of Norway, with red and white wooden houses, boats moored along the pier, snow-capped mountains in the background, and the northern lights glowing green above the calm, dark water of the fjord on a cold winter's night in January 2019; photo by an unknown traveller who didn't leave a name",
]

tokenizer = open_clip.SimpleTokenizer()
short = PLAIN + CONTRACTIONS + WHITE_SPACE + CONTROLS + SPECIAL + ENTITIES + UNICODE + NUMBERS + EMOJI + EMPTY + list(mojibake()) + LONG
lines = [(text, 32) for text in dict.fromkeys(short)] + [(text, 77) for text in LONG]
golden = []
for text, context in lines:
    ids = tokenizer(text, context)[0].tolist()
    while ids[-1] == 0:
        ids.pop()
    golden.append({"text": text} | ({"context": context} if context != 32 else {}) | {"ids": ids})
written = ",\n".join(json.dumps(line, separators=(",", ":")) for line in golden)
(HERE / "tokens.json").write_text(f"[\n{written}\n]\n")
print(f"{len(golden)} lines")
