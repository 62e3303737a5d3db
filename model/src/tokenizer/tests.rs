//! Golden ids from open_clip, made by `tests/golden/make_tokens.py`; properties of any text.

use proptest::prelude::*;

use super::*;

/// The vocabulary that set-up lays out, or none on a machine without it.
fn tokenizer() -> Option<Tokenizer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz");
    if !path.exists() {
        eprintln!("skipped: {} is not there, `make setup` fetches it", path.display());
        return None;
    }
    Some(Tokenizer::from_file(&path).unwrap())
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    #[serde(default = "usual_context")]
    context: usize,
    ids: Vec<i64>,
}

const fn usual_context() -> usize {
    32
}

#[test]
fn ids_equal_those_of_open_clip() {
    let Some(tokenizer) = tokenizer() else { return };
    let golden = include_str!("../../tests/golden/tokens.json");
    let lines: Vec<Line> = serde_json::from_str(golden).unwrap();
    assert!(lines.len() >= 300);
    for Line { text, context, ids: mut expected } in lines {
        expected.resize(context, 0);
        assert_eq!(tokenizer.encode_row(&text, context), expected, "{text:?}");
    }
}

#[derive(serde::Deserialize)]
struct Difference {
    text: String,
    why: String,
    open_clip: Vec<u32>,
    ours: Vec<u32>,
}

#[test]
fn ids_differ_from_those_of_open_clip_only_where_it_is_stated() {
    let Some(tokenizer) = tokenizer() else { return };
    let stated = include_str!("../../tests/golden/tokens_differ.json");
    let differences: Vec<Difference> = serde_json::from_str(stated).unwrap();
    for Difference { text, why, open_clip, ours } in differences {
        assert_eq!(tokenizer.encode(&text), ours, "{text:?}: {why}");
        assert_ne!(open_clip, ours, "{text:?} does not differ: {why}");
    }
}

#[test]
fn texts_are_mended_as_ftfy_does() {
    let mender = Mender::new();
    for (text, mended) in [
        ("sound text, café", "sound text, café"),
        ("cafÃ© mÃ¼de", "café müde"),
        ("itâ€™s Ã©tÃ©", "it's été"),
        ("ÃƒÂ©tÃƒÂ©", "été"),
        ("Ã la carte", "à la carte"),
        ("Ð¼Ð¸Ñ€ 猫", "мир 猫"),
        ("ðŸ˜€ í\u{a0}½í¸€", "😀 😀"),
        ("â€œlike thisâ€\u{fffd}", "\"like this\u{fffd}"),
        ("\u{93}quotes\u{94} \u{85}", "\"quotes\" …"),
        ("ﬁne Ｆｕｌｌ ｶﾞ ŉ", "fine Full ガ 'n"),
        ("\x1b[1;31mred\x1b[0m \u{feff}mark", "red mark"),
        ("e\u{301} a\u{30a}", "é å"),
        ("&EACUTE;t&eacute; &amp;amp; &ampx", "Été & &ampx"),
        ("&eacute;\n<b>&eacute;\n&eacute;", "é\n<b>&eacute;\n&eacute;"),
        ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
    ] {
        assert_eq!(mender.mend(text), mended, "{text:?}");
    }
}

#[test]
fn references_are_read_as_python_reads_them() {
    for (text, unescaped) in [
        ("&lt;b&gt; &amp;amp; &eacute;", "<b> &amp; é"),
        ("&ampfoo &notit; &notin;", "&foo ¬it; ∉"),
        ("&#233;&#xe9;&#Xe9&#65x", "éééAx"),
        ("&#128; &#x91; &#129;", "€ ‘ \u{81}"),
        ("&#0; &#xD800; &#x110000; &#99999999999;", "\u{fffd} \u{fffd} \u{fffd} \u{fffd}"),
        ("[&#1;&#127;&#xFDD0;&#x1FFFF;]", "[]"),
        ("&# &#; &#x; &#xg; & &; &abc;", "&# &#; &#x; &#xg; & &; &abc;"),
    ] {
        assert_eq!(entity::unescape(text), unescaped, "{text:?}");
    }
}

#[test]
fn words_are_cut_as_open_clips_pattern_cuts_them() {
    let check = |text: &str, expected: &[&str]| {
        let splitter = Splitter::new();
        let words = splitter.words(text).map(|word| match word {
            Word::StartOfText => "START",
            Word::EndOfText => "END",
            Word::Plain(word) => word,
        });
        assert_eq!(words.collect::<Vec<_>>(), expected, "{text:?}");
    };
    check("", &[]);
    check("don't 'string y'all've", &["don", "'t", "'s", "tring", "y", "'", "all", "'ve"]);
    check("12ab½٣", &["1", "2", "ab", "½", "٣"]);
    check("a<start_of_text><end_of_text>", &["a", "START", "END"]);
    check("!<end_of_text>", &["!<", "end", "_", "of", "_", "text", ">"]);
    check("<ſtart_of_text>'ſ", &["<ſtart_of_text>", "'ſ"]);
    check("!?… 猫é-", &["!?…", "猫é", "-"]);
    check("\u{301}\u{345}\u{301}", &["\u{301}", "\u{301}"]);
}

#[test]
fn an_over_long_text_keeps_its_end() {
    let Some(tokenizer) = tokenizer() else { return };
    let row = tokenizer.encode_row(&"cat ".repeat(50), 8);
    assert_eq!((row.len(), row[0], row[7]), (8, 49_406, 49_407));
    assert_eq!(row.iter().filter(|&&id| id == 49_407).count(), 1);
}

#[test]
fn a_file_that_is_no_vocabulary_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vocabulary.gz");
    std::fs::write(&path, b"not gzip").unwrap();
    let message = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(message.contains("vocabulary.gz"), "{message}");
}

/// Texts put together from words and from everything that is mended, each about as often.
fn any_text() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "&amp;",
        "&eacute",
        "&#150;",
        "&",
        "<",
        "\x1b[0m",
        "\x1b",
        "\r\n",
        "\u{a0}",
        "\u{345}",
        "Ã©",
        "â€™",
        "Ã ",
        "í\u{a0}½í¸€",
        "Ð¼Ð¸Ñ€",
        "â€\u{fffd}",
        "\u{93}",
        "ﬁ",
        "Ｆ",
        "’",
        "é",
        "猫",
        "İ",
        "ΑΣ",
        "ſ",
        "½",
        "👨‍👩‍👧",
        "<start_of_text>",
        "<END_OF_TEXT>",
        "'s",
        "'RE",
        "'",
    ];
    let piece = prop_oneof![
        4 => "[ -~]{0,12}",
        4 => "[a-zA-Z]{1,8}[ ,.]",
        2 => prop::sample::select(ODD).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

#[test]
fn any_text_makes_a_well_formed_row() {
    let Some(tokenizer) = tokenizer() else { return };
    proptest!(|(text in any_text(), context in 2_usize..80)| {
        let row = tokenizer.encode_row(&text, context);
        prop_assert_eq!(row.len(), context);
        prop_assert_eq!(row[0], i64::from(START_OF_TEXT));
        prop_assert!(row.iter().all(|id| (0..=i64::from(END_OF_TEXT)).contains(id)));
        // The text's own ids as far as there is room, the end, and zeros.
        let own = tokenizer.encode(&text);
        let kept = own.len().min(context - 2);
        let ids = |ids: &[u32]| ids.iter().copied().map(i64::from).collect::<Vec<_>>();
        prop_assert_eq!(&row[1..=kept], ids(&own[..kept]));
        prop_assert_eq!(row[kept + 1], i64::from(END_OF_TEXT));
        prop_assert!(row[kept + 2..].iter().all(|&id| id == 0));
        // One end, unless the text itself holds ends.
        if !clean::clean(&tokenizer.mender, &text).contains("<end_of_text>") {
            prop_assert!(!own.contains(&END_OF_TEXT));
        }
    });
}

#[test]
fn a_plain_text_is_cut_into_the_words_of_the_cleaned_one() {
    let (mender, splitter) = (Mender::new(), Splitter::new());
    proptest!(|(text in any_text())| {
        prop_assume!(clean::is_plain(&text));
        let cleaned = clean::clean(&mender, &text);
        let lower = text.to_ascii_lowercase();
        let (fast, slow) = (splitter.words(&lower), splitter.words(&cleaned));
        prop_assert_eq!(fast.collect::<Vec<_>>(), slow.collect::<Vec<_>>());
    });
}

#[test]
fn a_word_that_is_looked_up_has_the_id_it_merges_into() {
    let Some(tokenizer) = tokenizer() else { return };
    proptest!(|(text in any_text())| {
        for word in text.to_lowercase().split(' ') {
            let (mut found, mut merged) = (Vec::new(), Vec::new());
            tokenizer.bpe.encode(word, &mut found);
            tokenizer.bpe.merge(word.as_bytes(), &mut merged);
            prop_assert_eq!(found, merged);
        }
    });
}
